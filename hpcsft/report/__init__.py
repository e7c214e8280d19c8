"""What a run found out, as tables."""
