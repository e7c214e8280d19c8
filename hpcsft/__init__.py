"""hpcsft: fine-tune language models on Slurm clusters."""
