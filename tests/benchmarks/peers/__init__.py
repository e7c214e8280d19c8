"""What a benchmark runs side by side, each in a Python of its own: `python -m tests.benchmarks.peers.NAME`.

For preprocess_speed each reads a file of conversations, makes training rows of it as its project does, and prints one
JSON line {seconds, cpu_seconds, tokens, rows}. Imports, loading the tokenizer and a first run on a small file come
before the clock starts. hpcsft, the reference loop and the bare tokenizer read UltraChat JSONL, the others `messages`
JSONL.

For train_step those named train_NAME read rows that are made already, train until the clock has enough, and print one
JSON line {tokens, supervised, positions, seconds, steps, peak_mb, losses, versions}.
"""
