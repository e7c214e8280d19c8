"""What a run is doing, computed from files and one query, and shown."""
