"""What turns objective, priors and a search rule into iterations."""
