"""Guards that a run can tell which code it ran: with git, without it, and inside somebody else's checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpcsft.provenance.code import code_digest, code_files, code_state, git_state


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the folders that a run copies."""
    root = tmp_path / "checkout"
    for name in ("hpcsft/__init__.py", "jobs/train.py", "launch/submit.py", "notes/private.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
    git(root, "init", "--quiet")
    commit(root)
    return root


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", "-C", root, *identity, *arguments], check=True, capture_output=True, text=True).stdout


def commit(root: Path) -> None:
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "all")


def test_a_commit_its_diff_and_files_that_no_diff_shows(checkout):
    (checkout / "jobs" / "train.py").write_text("# edited\n")
    (checkout / "hpcsft" / "extra.py").write_text("# new\n")
    (checkout / "notes" / "private.md").write_text("nothing that runs\n")
    state = git_state(checkout)
    assert state["commit"] == git(checkout, "rev-parse", "HEAD").strip()
    assert "+# edited" in state["diff"] and "nothing that runs" not in state["diff"]
    assert state["untracked"] == ["hpcsft/extra.py"]


def test_a_diff_is_plain_whatever_the_user_has_set(checkout):
    git(checkout, "config", "diff.external", "/bin/false")
    git(checkout, "config", "color.ui", "always")
    (checkout / "jobs" / "train.py").write_text("# edited\n")
    assert "\n+# edited\n" in git_state(checkout)["diff"]


def test_without_git_there_is_a_digest(checkout):
    with_git = code_state(checkout)["code_digest"]
    subprocess.run(["rm", "-rf", checkout / ".git"], check=True)
    state = code_state(checkout)
    assert (state["commit"], state["diff"], state["untracked"]) == (None, None, None)
    assert state["code_digest"] == with_git and state["version"]


def test_a_copy_within_a_checkout_is_no_part_of_it(checkout):
    copy = checkout / "runs" / "a" / "code" / "hpcsft"
    copy.mkdir(parents=True)
    (copy / "__init__.py").write_text("# hpcsft/__init__.py\n")
    assert git_state(copy.parent) == {"commit": None, "diff": None, "untracked": None}


def test_the_digest_is_of_what_runs_and_of_nothing_else(checkout):
    before = code_digest(code_files(checkout))
    (checkout / "notes" / "more.md").write_text("x")
    (checkout / "hpcsft" / "__pycache__").mkdir()
    (checkout / "hpcsft" / "__pycache__" / "a.cpython-311.pyc").write_text("x")
    (checkout / "hpcsft" / ".swp").write_text("x")
    assert code_digest(code_files(checkout)) == before
    (checkout / "launch" / "submit.py").rename(checkout / "launch" / "submit2.py")
    assert code_digest(code_files(checkout)) != before
