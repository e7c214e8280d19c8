"""Answers of a model to prompts: how they are asked, computed in batches, and ended."""
