"""Tests of hpcsft.data."""
