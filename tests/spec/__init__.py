"""Tests of hpcsft/spec: what a spec may say, and how its mistakes are explained."""
