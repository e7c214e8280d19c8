"""Following a log: every byte once, over requeues, to the end of the stage and no longer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcsft.logs import show as module
from hpcsft.logs.choose import Wish, choose
from hpcsft.logs.show import follow, show
from hpcsft.rundir import RunDir
from tests.logs.following import Following
from tests.logs.made import log, say, submit
from tests.runs import finished_run


@pytest.fixture
def run(spec_values: dict[str, Any]) -> RunDir:
    """A run whose training is under way."""
    run = finished_run(spec_values)
    submit(run)
    log(run, "train/12_0", out="step 1\n", err="a warning\n")
    say(run, "train/12_0", "running")
    return run


@pytest.fixture
def following(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Following]:
    """Starts to follow the training; what is printed goes to files."""
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.02)
    monkeypatch.setattr(module, "QUIET_S", 0.3)
    return lambda: Following(run, tmp_path, monkeypatch)


def append(run: RunDir, name: str, data: bytes) -> None:
    with open(run.logs / name, "ab") as file:
        file.write(data)


def test_what_is_appended_is_printed_to_the_end_of_the_stage(run, following):
    it = following()
    it.wait_for(b"step 1\na warning\n")
    append(run, "train/12_0/0.out", b"10%\r20%\r\xff\x00 bytes\n")
    it.wait_for(b"10%\r20%\r\xff\x00 bytes\n")  # a pipe gets what was written
    append(run, "train/12_0/0.out", b"the last\n")
    say(run, "train/12_0", "done")
    assert it.end() == "done"
    assert it.out == b"step 1\na warning\n10%\r20%\r\xff\x00 bytes\nthe last\n"
    names = [line for line in it.err.decode().splitlines() if line]
    assert names == [f"==> logs/train/12_0/0.{kind} <==" for kind in ("out", "err", "out")]


def test_it_goes_on_with_the_attempt_after_a_requeue(run, following):
    it = following()
    it.wait_for(b"a warning\n")
    say(run, "train/12_0", "stopped")
    append(run, "train/12_0/0.out", b"saved\n")
    log(run, "train/12_1", out="step 2\n", began_s=2)
    it.wait_for(b"saved\nstep 2\n")
    say(run, "train/12_1", "running")
    append(run, "train/12_1/0.out", b"step 3\n")
    it.wait_for(b"step 3\n")
    say(run, "train/12_1", "failed")
    assert it.end() == "failed"
    assert b"==> attempt 12_1 has started <==\n==> logs/train/12_1/0.out <==\n" in it.err


def test_the_attempt_after_the_last_is_waited_for_when_it_was_submitted(run, following):
    say(run, "train/12_0", "failed")
    submit(run, train="22")
    it = following()
    it.wait_for(b"a warning\n")
    log(run, "train/22_0", out="step 2\n", began_s=2)
    it.wait_for(b"step 2\n")
    say(run, "train/22_0", "done")
    assert it.end() == "done"


def test_other_tasks_of_the_array_are_none_of_its_business(run, capsysbinary, monkeypatch):
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.02)
    log(run, "generate/13_0_0", out="mine\n")
    log(run, "generate/13_1_0", out="another's\n")
    say(run, "generate/13_0_0", "done")
    assert follow(run, choose(run, Wish(stage="generate", index=0)), "both") == "done"
    assert capsysbinary.readouterr().out == b"mine\n"


def test_a_file_that_is_cut_is_read_from_its_beginning(run, following):
    it = following()
    it.wait_for(b"a warning\n")
    (run.logs / "train" / "12_0" / "0.out").write_bytes(b"anew\n")
    it.wait_for(b"anew\n")
    say(run, "train/12_0", "done")
    assert it.end() == "done"


def test_a_file_that_comes_late_is_followed(run, following):
    (run.logs / "train" / "12_0" / "0.err").unlink()
    it = following()
    it.wait_for(b"step 1\n")
    append(run, "train/12_0/0.err", b"at last\n")
    it.wait_for(b"at last\n")
    say(run, "train/12_0", "waiting")
    assert it.end() == "waiting"


def test_a_cancelled_run_ends_it_when_nothing_more_comes(run, following):
    run.cancelled.write_text("{}")
    it = following()
    append(run, "train/12_0/0.out", b"saving\n")
    assert it.end() == "cancelled"
    assert b"saving\n" in it.out


def test_a_driver_that_is_gone_ends_it(run, following):
    submit(
        run, cluster="local", **dict.fromkeys(("preprocess", "train", "generate", "judge", "report"), "local-4194304")
    )
    assert following().end() == "failed"


def test_the_last_lines_of_each_stream(run, capsysbinary):
    log(run, "train/12_0", out="1\n2\n3\n", err="4\n5\n")
    choice = choose(run, Wish(stage="train"))
    show(run, choice, "both", num_lines=2)
    assert capsysbinary.readouterr().out == b"2\n3\n4\n5\n"
    show(run, choice, "err", num_lines=1)
    assert capsysbinary.readouterr().out == b"5\n"


def test_a_terminal_gets_nothing_that_would_change_it(run, capsysbinary, monkeypatch):
    log(run, "train/12_0", out="\x1b[2J\x1b]0;title\x0710%\r20%\n")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show(run, choose(run, Wish(stage="train")), "out")
    assert capsysbinary.readouterr().out == b"10%\r20%\n"


def test_a_terminal_gets_whole_characters_of_what_is_written_in_parts(run, capsysbinary, monkeypatch):
    log(run, "train/12_0")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    printer, tails = show(run, choose(run, Wish(stage="train")), "both")
    for stream, part in [
        ("out", b"Gr\xc3"),
        ("err", b"a\x1b[3"),
        ("out", b"\xb6\xc2"),
        ("out", b"\x9b"),
        ("err", b"1mb\n"),
    ]:
        append(run, f"train/12_0/0.{stream}", part)
        for tail in tails:
            printer.show(tail)
    assert capsysbinary.readouterr().out.decode() == "Graöb\n"
