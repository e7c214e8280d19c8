"""Stages become jobs: through submitit to Slurm, or to a driver on this machine."""
