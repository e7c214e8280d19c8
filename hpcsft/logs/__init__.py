"""Which log a person wants to see, and how it is printed and followed."""
