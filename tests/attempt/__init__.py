"""Tests of hpcsft/attempt."""
