"""What the login node sees in a model folder."""
