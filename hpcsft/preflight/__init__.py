"""What is looked at before anything is queued; each check returns findings."""
