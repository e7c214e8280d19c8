"""Answers to prompts, verdicts on pairs of answers, and win rates."""
