"""Tests of hpcsft.evaluate.scores."""
