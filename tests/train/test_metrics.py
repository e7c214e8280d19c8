"""Guards the list of losses: every step once and in order, whatever the disk and earlier attempts did."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcsft import records
from hpcsft.records import read_jsonl
from hpcsft.rundir import RunDir
from hpcsft.train.metrics import MetricsLog


@pytest.fixture
def run(tmp_path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.create()
    return run


def steps(path: Path) -> list[int]:
    return [row["step"] for row in read_jsonl(path)]


@contextlib.contextmanager
def limited(path: Path, room_bytes: int = 0) -> Iterator[None]:
    """No file of this process may grow beyond the present size of `path` by more than `room_bytes`."""
    size = path.stat().st_size if path.exists() else 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room_bytes", [0, 10], ids=["no room", "room for a part"])
def test_lines_that_the_disk_refuses_are_written_later_in_order_and_once(run, room_bytes):
    log = MetricsLog(run)
    for step in (1, 2):
        log.step(step=step, loss=1.0)
    before = run.metrics.read_bytes()
    with limited(run.metrics, room_bytes):
        for step in (3, 4):
            log.step(step=step, loss=1.0)
        log.validation(checkpoint="epoch-1", epoch=1, step=4, loss=1.0)
        with pytest.raises(OSError):
            log.flush()
        assert run.metrics.read_bytes() == before, "a part of a line was left"
    log.step(step=5, loss=1.0)
    log.flush()
    assert steps(run.metrics) == [1, 2, 3, 4, 5] and steps(run.validation) == [4]
    assert run.metrics.read_text().count("\n") == 5
    times = [row["time"] for row in read_jsonl(run.metrics)]
    assert times == sorted(times)


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    """A filesystem of 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a filesystem")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(tiny_disk):
    run = RunDir(tiny_disk / "run")
    run.create()
    log = MetricsLog(run)
    log.step(step=1, loss=1.0)
    filler = tiny_disk / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)
    for step in range(2, 100):
        log.step(step=step, loss=1.0)
    assert steps(run.metrics) == list(range(1, len(steps(run.metrics)) + 1)) and len(steps(run.metrics)) < 99
    with pytest.raises(OSError, match="No space left"):
        log.flush()
    filler.unlink()
    log.flush()
    assert steps(run.metrics) == list(range(1, 100))


def test_a_line_that_was_written_and_not_flushed_is_not_written_twice(run, monkeypatch):
    """Some filesystems only say at the fsync that there is no room."""
    log = MetricsLog(run)

    def refuse(file: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as full:
        full.setattr(records.os, "fsync", refuse)
        log.step(step=1, loss=1.0)
    log.step(step=2, loss=1.0)
    assert steps(run.metrics) == [1, 2]


def written(run: RunDir) -> MetricsLog:
    log = MetricsLog(run)
    log.validation(checkpoint="base", epoch=0, step=0, loss=2.0)
    for step in range(1, 8):
        log.step(step=step, loss=1.0 / step)
        if step in (3, 6):
            log.validation(checkpoint=f"epoch-{step // 3}", epoch=step // 3, step=step, loss=1.0)
    return log


@pytest.mark.parametrize(
    ("step", "lost", "kept", "validated"),
    [
        (7, 0, [1, 2, 3, 4, 5, 6, 7], [0, 3, 6]),
        (5, 2, [1, 2, 3, 4, 5], [0, 3]),
        (3, 4, [1, 2, 3], [0, 3]),
        (0, 7, [], []),
    ],
)
def test_an_attempt_goes_back_to_its_checkpoint_and_knows_what_is_done_again(run, step, lost, kept, validated):
    written(run)
    log = MetricsLog(run)
    assert log.rewind(step) == lost
    assert steps(run.metrics) == kept and steps(run.validation) == validated
    assert log.validated(2) is (6 in validated)
    log.step(step=step + 1, loss=0.0)
    assert steps(run.metrics) == [*kept, step + 1]


def test_going_back_keeps_every_bit_of_what_stays(run):
    written(run)
    rows = list(read_jsonl(run.metrics))
    before = run.metrics.stat().st_ino
    MetricsLog(run).rewind(7)
    assert run.metrics.stat().st_ino == before, "nothing was lost, so nothing is written"
    MetricsLog(run).rewind(5)
    assert list(read_jsonl(run.metrics)) == rows[:5]


def test_a_line_that_a_killed_attempt_tore_is_gone_after_going_back(run):
    written(run)
    with open(run.metrics, "a") as file:
        file.write('{"step": 8, "lo')
    log = MetricsLog(run)
    assert log.rewind(7) == 0
    log.step(step=8, loss=1.0)
    assert steps(run.metrics) == list(range(1, 9))
    assert MetricsLog(RunDir(run.path / "new")).rewind(0) == 0
