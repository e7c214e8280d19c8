"""What ran, on what, with which inputs; and what it takes to run it again."""
