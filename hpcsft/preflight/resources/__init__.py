"""What each stage asks for, against what the cluster has and allows."""
