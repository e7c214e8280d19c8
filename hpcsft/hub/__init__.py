"""Models and data sets of the Hugging Face hub: fetched on the login node, so that jobs need no network."""
