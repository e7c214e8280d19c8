"""Loading, loss and export of models."""
