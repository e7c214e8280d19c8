"""Telling a person that a run is done, has failed or waits: by a command, by a webhook, once."""
