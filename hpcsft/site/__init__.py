"""What this cluster is, as Slurm's own commands tell it on a login node."""
