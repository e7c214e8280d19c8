"""Tests of hpcsft.evaluate.judges."""
