"""Tests of hpcsft.benchmark."""
