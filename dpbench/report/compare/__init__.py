"""Several runs side by side: what is the same setting in each, and by how much they differ there."""
