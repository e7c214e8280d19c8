"""Bad inputs and bad surroundings, each with the words that a user sees: kept as text, to be read."""
