"""Tests of hpcsft/train."""
