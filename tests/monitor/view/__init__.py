"""What is shown, as text."""
