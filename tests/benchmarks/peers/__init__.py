"""What preprocess_speed runs side by side, each in a Python of its own: `python -m tests.benchmarks.peers.NAME`.

Each reads a file of conversations, makes training rows of it as its project does, and prints one JSON line
{seconds, cpu_seconds, tokens, rows}. Imports, loading the tokenizer and a first run on a small file come before the
clock starts. hpcsft, the reference loop and the bare tokenizer read UltraChat JSONL, the others `messages` JSONL.
"""
