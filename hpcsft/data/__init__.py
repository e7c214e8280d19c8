"""From files of conversations to micro batches of supervised tokens."""
