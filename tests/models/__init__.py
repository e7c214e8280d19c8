"""Tests of hpcsft.models."""
