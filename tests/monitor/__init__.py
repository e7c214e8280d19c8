"""Tests of hpcsft.monitor."""
