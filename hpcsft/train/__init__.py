"""Training with DeepSpeed: configuration, ranks, loop, checkpoints, metrics."""
