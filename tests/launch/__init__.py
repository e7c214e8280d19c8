"""Tests of launch/ and of the console script: the real commands in processes of their own."""
