"""Reads run directories and asks Slurm: what the state of a run is computed from."""
