"""What state a run is in, from facts alone. Pure."""
