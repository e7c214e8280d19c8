"""The end of a process: with the right status, whatever the teardown of the interpreter would make of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import atexit, contextlib, os, sys
from hpcsft.attempt.ending import ends_at_once
atexit.register(os.abort)  # stands for what threads of gloo do during the teardown
with ends_at_once():
    sys.stdout.write("all of it")
    {leave}
"""


def end(leave: str) -> tuple[int, str, str]:
    """Exit status and outputs of a process that leaves the block so."""
    code = SCRIPT.format(leave=leave)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("leave", "status", "told"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(75)", 75, ""),
        ("sys.exit('usage')", 1, "usage"),
        ("1 / 0", 1, "ZeroDivisionError"),
    ],
)
def test_a_process_ends_with_its_status_and_all_its_output(leave: str, status: int, told: str) -> None:
    """An aborted rank would count as failed, and srun would end the others for it."""
    code, out, err = end(leave)
    assert (code, out) == (status, "all of it")
    assert told in err


def test_the_outer_of_two_blocks_decides() -> None:
    """A rank that was stopped has not failed: the task says so around the job's own script."""
    assert end("with contextlib.suppress(SystemExit), ends_at_once(): sys.exit(75)")[0] == 0


def test_a_closed_output_is_no_reason_not_to_end() -> None:
    assert end("sys.stdout.close()")[0] == 0
