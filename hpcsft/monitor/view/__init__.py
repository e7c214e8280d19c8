"""State -> what is shown: rich renderables for a terminal, lines for a pipe. Pure."""
