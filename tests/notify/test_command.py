"""A command is run as it stands, without a shell, and never holds anybody up."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from hpcsft.notify.command import run_command
from tests.waiting import wait_for


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-c", code, *words]


def test_words_environment_and_input_reach_the_program_as_they_are(tmp_path):
    code = "import os, sys; open('told', 'w').write(repr((sys.argv[1:], os.environ['HPCSFT_STATE'], sys.stdin.read())))"
    words = ["$(touch pwned)", "; touch pwned", "a b", "你好"]
    assert run_command(python(code, *words), str(tmp_path), {"HPCSFT_STATE": "done"}, '{"a": "é"}\n') is None
    assert (tmp_path / "told").read_text() == repr((words, "done", '{"a": "é"}\n'))
    assert [path.name for path in tmp_path.iterdir()] == ["told"]


def test_a_program_need_not_read_what_it_is_given(tmp_path):
    assert run_command(["true"], str(tmp_path), {}, "x" * 10**6) is None


def test_a_program_that_fails_is_told_with_its_last_words_but_no_address(tmp_path):
    code = (
        "import sys; print('a\\nno such host: https://hooks.example.org/services/x7x7', file=sys.stderr); sys.exit(3)"
    )
    assert run_command(python(code), str(tmp_path), {}, "") == (
        "exit status 3: no such host: https://hooks.example.org/..."
    )
    assert run_command(["false"], str(tmp_path), {}, "") == "exit status 1"


def test_a_program_that_is_not_there(tmp_path):
    assert run_command(["no-such-program"], str(tmp_path), {}, "") == "No such file or directory"
    assert run_command(["true", "a\0b"], str(tmp_path), {}, "") == "embedded null byte"


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path):
    code = """
import subprocess, time
child = subprocess.Popen(["sleep", "600"])
open("child", "w").write(str(child.pid))
time.sleep(600)
"""
    before_s = time.monotonic()
    assert run_command(python(code), str(tmp_path), {}, "", timeout_s=2) == "killed after 2 s"
    assert time.monotonic() - before_s < 20
    child = int((tmp_path / "child").read_text())
    wait_for("the end of the child", lambda: not alive(child))


def test_a_program_that_leaves_a_child_behind_is_not_waited_for(tmp_path):
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, file=open('child', 'w'))"
    assert run_command(python(code), str(tmp_path), {}, "", timeout_s=30) is None
    child = int((tmp_path / "child").read_text())
    assert alive(child)
    os.kill(child, 9)


def alive(pid: int) -> bool:
    """Does it live on, and is no corpse that init has still to bury?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
