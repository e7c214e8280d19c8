"""Guards what TensorBoard and W&B show: all of metrics.jsonl, each step once, whatever happened before; and that they
can do training no harm. Read back with the readers that people's own tools use.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcsft.errors import StageError
from hpcsft.records import write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from hpcsft.train import trackers as module
from hpcsft.train.metrics import MetricsLog
from hpcsft.train.tracker_process import Follower
from hpcsft.train.trackers import Trackers, missing_packages
from tests.waiting import wait_for

BOTH = ["tensorboard", "wandb"]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Iterator[RunDir]:
    """Nothing that it starts outlives the test."""
    start, started = module.start_listener, []

    def remembered(command: list[str], cwd: Path) -> tuple[subprocess.Popen[bytes], int]:
        started.append(start(command, cwd))
        return started[-1]

    monkeypatch.setattr(module, "start_listener", remembered)
    run = RunDir(tmp_path / "demo-12345678")
    run.create()
    values = {"model": {"path": "/m"}, "data": {"train": ["/d.jsonl"]}, "train": {"trackers": BOTH}}
    cluster = {"env": {"WORD": "hush-1"}, "setup": ["export OTHER=hush-2"], "sbatch": {"exclude": "hush-3"}}
    write_json(run.spec, parse_spec({**values, "cluster": cluster}))
    yield run
    for process, _ in started:
        process.kill()
        process.wait()


def attempt(run: RunDir, step: int, names: list[str] = BOTH) -> MetricsLog:
    """A log that goes on after `step`, with its trackers."""
    log = MetricsLog(run)
    log.rewind(step)
    log.start_trackers(names)
    return log


def write(log: MetricsLog, first: int, last: int, factor: float = 1.0) -> None:
    """Steps `first` to `last`, and the validation losses that belong there: after every fourth step."""
    for step in range(first, last + 1):
        log.step(step=step, epoch=step / 4, loss=factor / step, grad_norm=None, tokens=100 * step)
        if step % 4 == 0:
            log.validation(checkpoint=f"epoch-{step // 4}", epoch=step // 4, step=step, loss=factor * step)


def processes(log: MetricsLog) -> dict[str, subprocess.Popen[bytes]]:
    """The process of each tracker."""
    return {process.args[-1]: process for process, _ in log._trackers._lines}


def drawn(run: RunDir, tag: str) -> dict[int, float]:
    """What TensorBoard draws: value by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0})
    board.Reload()
    events = board.Scalars(tag) if tag in board.Tags()["scalars"] else []
    assert len({event.step for event in events}) == len(events), "a step is drawn twice"
    return {event.step: event.value for event in events}


def folders(run: RunDir) -> list[Path]:
    return sorted((run.path / "wandb").glob("offline-run-*"))


def records(folder: Path) -> list[Any]:
    """The records of an offline run: after 7 bytes, LevelDB's log format, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = b"".join(file.read_bytes() for file in folder.glob("*.wandb"))
    found, part, at = [], b"", 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if at + 7 + size > len(data):
            break  # not all of it is written yet
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(part))
            part = b""
    return found


def history(folder: Path) -> list[dict[str, str]]:
    """The rows of an offline run."""
    items = [record.history.item for record in records(folder) if record.HasField("history")]
    return [{".".join(item.nested_key) or item.key: item.value_json for item in row} for row in items]


def sent(folder: Path, key: str) -> dict[int, float]:
    """What an offline run holds: value by step."""
    rows = [row for row in history(folder) if key in row]
    found = {int(row["step"]): float(row[key]) for row in rows}
    assert len(found) == len(rows), "a step is held twice"
    return found


LOSSES = {step: pytest.approx(1 / step) for step in range(1, 10)}
VALIDATION = {4: 4.0, 8: 8.0}


def check(run: RunDir, losses: dict[int, Any] = LOSSES) -> None:
    """Does each show the whole run?"""
    assert drawn(run, "train/loss") == losses and drawn(run, "validation/loss") == VALIDATION
    (folder,) = folders(run)
    steps = [int(row["step"]) for row in history(folder)]
    assert steps == sorted(steps)
    assert sent(folder, "train/loss") == losses and sent(folder, "validation/loss") == VALIDATION


def test_both_show_the_whole_run_and_nothing_secret(run, monkeypatch):
    monkeypatch.setenv("WANDB_SERVICE", "3-1-tcp-localhost-1")  # of the session that submitted, long gone
    log = attempt(run, 0)
    write(log, 1, 9)
    log.close(finished=True)
    check(run)
    assert drawn(run, "train/tokens")[9] == 900 and drawn(run, "train/grad_norm") == {}
    (folder,) = folders(run)
    (told,) = (record.run for record in records(folder) if record.HasField("run"))
    assert (told.run_id, told.project, told.display_name) == (run.path.name, "hpcsft", run.path.name)
    config = {update.key: update.value_json for update in told.config.update if update.key != "_wandb"}
    assert set(config) == {"name", "seed", "model", "data", "train"} and '"/d.jsonl"' in config["data"]
    assert [record.exit.exit_code for record in records(folder) if record.HasField("exit")] == [0]
    for name in BOTH:
        for file in (run.path / name).rglob("*"):
            assert not file.is_file() or b"hush" not in file.read_bytes(), file
        assert (run.path / name).stat().st_mode & 0o777 == 0o700
    assert not list((run.path / "wandb").rglob("requirements.txt"))


def test_steps_that_are_done_again_after_a_kill_are_shown_once_as_they_were_done_last(run):
    """Also to a TensorBoard that looks on meanwhile; and what was not sent before the kill is not missing."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = attempt(run, 0)
    write(log, 1, 3, factor=2.0)
    board = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0})

    def seen() -> dict[int, float]:
        if not (run.path / "tensorboard").exists():
            return {}
        board.Reload()
        tags = board.Tags()["scalars"]
        return {event.step: event.value for event in board.Scalars("train/loss")} if "train/loss" in tags else {}

    wait_for("TensorBoard's file", lambda: len(seen()) == 3)
    wait_for("W&B's file", lambda: list((run.path / "wandb").glob("*/*.wandb")))
    write(log, 4, 8, factor=2.0)
    wait_for("TensorBoard's file", lambda: len(seen()) == 8)
    wait_for("W&B's file", lambda: len(sent(folders(run)[0], "train/loss")) == 8, timeout_s=10)
    for process in processes(log).values():
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (killed,) = folders(run)
    assert sent(killed, "train/loss") == {step: pytest.approx(2 / step) for step in range(1, 9)}
    log = MetricsLog(run)
    log.rewind(0)
    write(log, 1, 3)  # by an attempt whose trackers never came to send it
    log = attempt(run, 3)
    write(log, 4, 9)
    log.close(finished=True)
    check(run)
    assert seen() == LOSSES
    assert folders(run) != [killed] and folders(run)[0].name[-13:] == killed.name[-13:], "the id stays"


def test_a_stop_costs_no_time_and_the_next_attempt_shows_all(run):
    log = attempt(run, 0)
    write(log, 1, 5)
    left = processes(log)
    started_s = time.monotonic()
    log.close(finished=False)
    assert time.monotonic() - started_s < 0.5
    for process in left.values():
        assert process.wait(60) == 0, "they end by themselves"
    (stopped,) = folders(run)
    assert [record.exit.exit_code for record in records(stopped) if record.HasField("exit")] == [1]
    log = attempt(run, 5)
    write(log, 6, 9)
    log.close(finished=True)
    check(run)


def test_they_end_after_a_training_that_was_killed(run):
    """The pipe closes then, without a word."""
    log = attempt(run, 0)
    write(log, 1, 2)
    for process, pipe in log._trackers._lines:
        os.close(pipe)
        assert process.wait(60) == 0
    assert sent(folders(run)[0], "train/loss") == drawn(run, "train/loss") == {1: 1.0, 2: 0.5}


def core_of(process: subprocess.Popen[bytes]) -> int:
    """The pid of W&B's service."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for("W&B's service", lambda: children.read_text().split())
    return int(children.read_text().split()[0])


def test_signals_to_the_whole_job_end_no_tracker(run, capfd):
    """W&B's own service dies of SIGTERM, which Slurm sends to all of a job: the run is shown to its end still."""
    log = attempt(run, 0)
    write(log, 1, 4)
    wait_for("W&B's file", lambda: folders(run) and len(sent(folders(run)[0], "train/loss")) == 4)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP, signal.SIGCONT):
        for process in processes(log).values():
            os.kill(process.pid, number)
    os.kill(core_of(processes(log)["wandb"]), signal.SIGTERM)
    write(log, 5, 9)
    assert [process.poll() for process in processes(log).values()] == [None, None]
    log.close(finished=True)
    check(run)
    text = capfd.readouterr().err
    assert text.count("\n") == 1 and text.startswith("wandb: shows nothing more in this attempt: "), text


def test_what_fails_on_a_full_disk_is_said_once_and_shown_at_the_end_of_the_run(run, capfd):
    log = attempt(run, 0, ["tensorboard"])
    write(log, 1, 2)
    wait_for("TensorBoard's file", lambda: (run.path / "tensorboard").exists() and len(drawn(run, "train/loss")) == 2)
    (process,) = processes(log).values()
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    (file,) = (run.path / "tensorboard").iterdir()
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file.stat().st_size + 100, hard))
    write(log, 3, 5)
    said: list[str] = []
    wait_for("a line in the log", lambda: said.append(capfd.readouterr().err) or "".join(said))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    write(log, 6, 9)
    log.close(finished=True)
    text = "".join([*said, capfd.readouterr().err])
    assert text.count("\n") == 1 and text.startswith("tensorboard: shows nothing more in this attempt: OSError"), text
    assert drawn(run, "train/loss") == LOSSES


def test_one_that_hangs_costs_nothing(run, monkeypatch):
    monkeypatch.setattr(module, "FINISH_WAIT_S", 0.2)
    log = attempt(run, 0, ["tensorboard"])
    (process,) = processes(log).values()
    os.kill(process.pid, signal.SIGSTOP)
    started_s = time.monotonic()
    for _ in range(100_000):  # more than a pipe holds
        log._trackers.look()
    log.close(finished=True)
    assert time.monotonic() - started_s < 10
    assert process.wait(10) == -signal.SIGKILL


def test_one_that_is_gone_costs_nothing(run):
    log = attempt(run, 0, ["tensorboard"])
    (process,) = processes(log).values()
    process.kill()
    process.wait()
    write(log, 1, 4)
    log.close(finished=True)


def test_lines_that_a_full_disk_refused_are_shown_when_they_are_written(run, monkeypatch):
    log = attempt(run, 0, ["tensorboard"])
    write(log, 1, 2)

    def refuse(path: Path, row: dict[str, Any]) -> None:
        raise OSError("no room")

    with monkeypatch.context() as full:
        full.setattr("hpcsft.train.metrics.append_jsonl", refuse)
        write(log, 3, 7)
    with open(run.metrics, "a") as file:
        file.write('{"step": 3, "lo')  # a killed writer's
    write(log, 8, 9)
    log.close(finished=True)
    assert drawn(run, "train/loss") == LOSSES and drawn(run, "validation/loss") == VALIDATION


def test_all_is_made_anew_from_the_run_directory_at_any_time(run):
    write(MetricsLog(run), 1, 9)
    for name in BOTH:
        command = [sys.executable, "-m", "hpcsft.train.tracker_process", str(run.path), name, "finished"]
        subprocess.run(command, check=True, timeout=120)
    check(run)


def test_a_line_is_read_when_all_of_it_is_there(tmp_path):
    file = Follower(tmp_path / "metrics.jsonl")
    assert list(file.new_rows()) == []
    for text, rows in (
        ('{"a": 1}\n{"a"', [{"a": 1}]),
        ("", []),
        (': 2}\n{"tor\n', [{"a": 2}]),
        ('{"a": 3}\n', [{"a": 3}]),
    ):
        with open(file.path, "a") as stream:
            stream.write(text)
        assert list(file.new_rows()) == rows


def test_w_and_b_goes_by_its_own_variables(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    log = attempt(run, 0, ["wandb"])
    write(log, 1, 4)
    log.close(finished=True)
    assert folders(run) == []


def test_a_package_that_is_missing_is_told_before_anything_starts(run, tmp_path, monkeypatch):
    (tmp_path / "beside/lightboard").mkdir(parents=True)  # a folder of that name is no package
    monkeypatch.syspath_prepend(tmp_path / "beside")
    assert missing_packages([*BOTH, "lightboard", "nosuch"]) == ["lightboard", "nosuch"]
    with pytest.raises(StageError, match=r"train\.trackers: not installed here: nosuch") as caught:
        Trackers.start(["tensorboard", "nosuch"], run)
    assert caught.value.hint == "pip install nosuch, or leave it out of train.trackers"


def test_nothing_is_loaded_into_training():
    look = "import sys, hpcsft.train.metrics as m; print({'wandb', 'tensorboard', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
