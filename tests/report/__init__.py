"""Tests of hpcsft.report."""
