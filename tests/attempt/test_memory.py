"""The most memory that a process has needed is its own."""

from __future__ import annotations

import subprocess
import sys

from hpcsft.attempt.memory import peak_resident_bytes
from tests.launch.command import ROOT

LARGE = """
from hpcsft.attempt.memory import peak_resident_bytes
before = peak_resident_bytes()
block = bytearray(b"x") * 200_000_000
del block
print(before, peak_resident_bytes())
"""


def test_the_most_memory_a_process_ever_had_is_its_own_and_remembered():
    """That of the process that started it does not count, though Linux's ru_maxrss would say so."""
    parent = "import subprocess, sys; block = bytearray(b'x') * 700_000_000; "
    parent += f"subprocess.run([sys.executable, '-c', {LARGE!r}])"
    command = [sys.executable, "-c", parent]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=ROOT)
    before, after = map(int, done.stdout.split())
    assert 190_000_000 < after - before < 220_000_000 and after < 650_000_000


def test_a_system_that_does_not_tell(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text("Name:\tpython\n")
    assert peak_resident_bytes(tmp_path) == 0
