"""What Slurm's clients print becomes a Site, and a Site becomes words."""
