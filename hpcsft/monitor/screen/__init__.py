"""The live screen, and lines in a pipe."""
