"""One attempt at a stage: told to stop, fenced off, watched, journaled, and how its end is judged."""
