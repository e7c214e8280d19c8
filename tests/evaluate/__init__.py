"""Tests of hpcsft.evaluate."""
