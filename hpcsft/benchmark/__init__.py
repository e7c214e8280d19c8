"""Tasks of lm-evaluation-harness on the checkpoints of a run."""
