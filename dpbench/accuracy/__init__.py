"""What a defence costs: the accuracy of models trained under it."""
