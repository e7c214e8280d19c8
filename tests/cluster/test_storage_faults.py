"""Submission, resuming and cancelling on filesystems that are full, read-only or of somebody else.

The filesystems are real: small ones in memory, mounted for the test, and remounted read-only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from tests.cluster.minislurm import MiniSlurm
from tests.launch.command import ROOT, environment, launch

NOBODY = 65534


def mount(*words: object) -> None:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a filesystem of the given size on tmp_path/runs."""
    folder = tmp_path / "runs"
    folder.mkdir()

    def mounted(size: str) -> Path:
        mount("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
        return folder

    yield mounted
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


@pytest.fixture
def command(slurm: MiniSlurm, spec_values: dict[str, Any], tmp_path: Path) -> Callable[..., Any]:
    """A launch script on the tiny spec, whose jobs are held."""
    spec_values["cluster"] = {"kind": "slurm", "partition": "low", "time": "00:10:00", "sbatch": {"hold": True}}
    (tmp_path / "spec.json").write_text(json.dumps(spec_values))
    return lambda script, *words: launch(script, *words, cwd=tmp_path)


@pytest.fixture
def run(spec_values: dict[str, Any], command: Callable[..., Any]) -> RunDir:
    """Where the run of that spec is to be."""
    return RunDir(parse_spec(spec_values).run_path)


def alive(slurm: MiniSlurm, run: RunDir) -> list[str]:
    lines = slurm.run("squeue", "-h", "-o", "%k").stdout.splitlines()
    return [line for line in lines if run.path.name in line]


def fill(folder: Path, leave: int) -> None:
    """Fill a filesystem but for `leave` bytes."""
    facts = os.statvfs(folder)
    (folder / "ballast").write_bytes(b"x" * max(0, facts.f_bavail * facts.f_frsize - leave))


def told(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It ended with plain lines that hold `words`: 2 is what the preflight has found, 1 what came after it."""
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert "error: " in done.stderr and "hint: " in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.slurm
@pytest.mark.parametrize("leave", [0, 200_000, 1_700_000])
def test_a_full_filesystem_leaves_nothing_half_submitted(command, small, run, slurm, leave):
    """Full at once, while the code is copied, or when it comes to the jobs' own files."""
    fill(small("4m"), leave)
    done = command("submit.py", "spec.json", "--force")  # the preflight knows that it will not be enough
    if done.returncode == 0:
        pytest.fail(f"{leave} bytes are enough: {done.stdout}")
    told(done, str(run.path.parent), "No space left on device", "make room")
    assert not alive(slurm, run) and not run.path.exists()
    assert [path.name for path in run.path.parent.iterdir()] == ["ballast"]


@pytest.mark.slurm
def test_a_filesystem_that_turns_full_between_two_jobs_takes_back_those_before(
    command, small, run, slurm, tmp_path, monkeypatch
):
    folder, real = small("8m"), subprocess.run(["which", "sbatch"], capture_output=True, text=True).stdout.strip()
    script = (
        f'#!/bin/bash\ngrep -q "job-name=.*train" "$1" && head -c 8M /dev/zero > {folder}/ballast 2>/dev/null\n'
        f'exec {real} "$@"\n'
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(script)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    done = command("submit.py", "spec.json")
    told(done, "No space left on device")
    assert not alive(slurm, run) and not run.path.exists()


@pytest.mark.slurm
def test_a_read_only_filesystem_is_told_and_jobs_are_cancelled_all_the_same(command, small, run, slurm):
    folder = small("32m")
    assert command("submit.py", "spec.json").returncode == 0
    assert len(alive(slurm, run)) == 5
    mount("mount", "-o", "remount,ro", folder)
    told(
        command("submit.py", "spec.json", "--set", "seed=8"),
        "Read-only file system",
        "try again when it can be written",
    )
    told(command("cancel.py", run.path, "--yes"), "could not be marked as cancelled, but its jobs were cancelled")
    assert not alive(slurm, run)
    told(command("resume.py", run.path), f"{run.path} cannot be resumed", "Read-only file system")
    mount("mount", "-o", "remount,rw", folder)
    assert command("resume.py", run.path).returncode == 0
    assert len(alive(slurm, run)) == 5
    assert command("cancel.py", run.path, "--yes").returncode == 0


@pytest.mark.slurm
def test_the_same_spec_of_two_people_in_one_folder_is_told_to_the_second(command, run, slurm, tmp_path):
    assert command("submit.py", "spec.json").returncode == 0
    os.chmod(run.path.parent, 0o1777)
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055) if folder.stat().st_uid == 0 and folder != Path("/") else None
    script = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); "
        "from hpcsft.cluster.submit import submit_experiment; from hpcsft.errors import report_errors; "
        "from hpcsft.plan import make_plan; from hpcsft.spec import load_spec; spec = load_spec('spec.json'); "
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); "
        "sys.exit(report_errors(lambda _: submit_experiment(spec, make_plan(spec), None, []) and 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    told(done, f"{run.path} belongs to root", "runs_dir")
    assert command("cancel.py", run.path, "--yes").returncode == 0
