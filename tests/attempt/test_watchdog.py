"""Guards what a run with a hung rank relies on: stacks in the log, the process ended, a record of why; and that a rank
which is slow, suspended, closed or already gone never loses its life, nor any other process, to a watchdog.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hpcsft.attempt.heartbeat import OUTLIVED_SIGNALS, WATCHDOG
from hpcsft.attempt.watchdog import (
    ENOUGH_GAPS,
    FIRST_S,
    FLOOR_S,
    LONGEST_FACTOR,
    REMEMBERED_GAPS,
    SLOW_FLOOR_S,
    TYPICAL_FACTOR,
    Budget,
)

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 30.0
BUDGET_S = 0.3  # where a kill is wanted
SETTLE_S = 0.2
AMPLE_S = 0.8  # where it is not: other work on the machine may hold a rank up

RANK = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path
from hpcsft.attempt import heartbeat
folder, budget_s, settle_s, heartbeat.WATCHDOG = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
hang_file = folder / "hang.json"
heart = heartbeat.Heartbeat.start(folder / "heartbeat", 3, hang_file, budget_s, settle_s)
print(heart.watchdog.pid, flush=True)

def beat_for(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        heart.beat("step", 7)
        time.sleep(0.02)
"""
HANG = "heart.beat('step', 7)\ndef stuck_here():\n    time.sleep(600)\nstuck_here()"
LOCKED = "lock = threading.Lock()\nlock.acquire()\n" + HANG.replace("time.sleep(600)", "lock.acquire()")
WITHOUT_PIDFD = """
import os, runpy, sys
vars(os).pop("pidfd_open", None)
runpy.run_path({path!r}, run_name="__main__")
"""


class Rank:
    """A process under a watchdog, in a process group of the two."""

    def __init__(self, folder: Path, body: str, budget_s: float, settle_s: float, watchdog: Path, stderr: int | None):
        self.folder = folder
        command = [sys.executable, "-c", RANK + body, str(folder), str(budget_s), str(settle_s), str(watchdog)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with open(folder / "err", "wb") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stderr or log, env=environment, start_new_session=True
            )
        assert self.process.stdout
        self.watchdog = int(self.process.stdout.readline())

    def end(self) -> int:
        """The exit code, minus the signal's number for a kill."""
        return self.process.wait(TIMEOUT_S)

    def log(self) -> str:
        return (self.folder / "err").read_text()

    def hang(self) -> dict[str, object]:
        return json.loads((self.folder / "hang.json").read_text())

    def watched(self) -> bool:
        """Is its watchdog still there?"""
        return process_state(self.watchdog) not in "ZX"


Start = Callable[..., Rank]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ranks in tmp_path and leaves nothing of them behind."""
    ranks: list[Rank] = []

    def start_rank(
        body: str,
        budget_s: float = BUDGET_S,
        settle_s: float = SETTLE_S,
        watchdog: Path = WATCHDOG,
        stderr: int | None = None,
    ) -> Rank:
        ranks.append(Rank(tmp_path, body, budget_s, settle_s, watchdog, stderr))
        return ranks[-1]

    yield start_rank
    for rank in ranks:
        with suppress(ProcessLookupError):
            os.killpg(rank.process.pid, signal.SIGKILL)
        rank.process.wait(TIMEOUT_S)
        assert rank.process.stdout
        rank.process.stdout.close()
        if rank.process.stderr:
            rank.process.stderr.close()


def process_state(pid: int) -> str:
    """The kernel's letter: S sleeps, Z is ended; X also for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def without_pidfd(tmp_path: Path) -> Path:
    """The watchdog as an old kernel has it."""
    script = tmp_path / "old_watchdog.py"
    script.write_text(WITHOUT_PIDFD.format(path=str(WATCHDOG)))
    return script


@pytest.mark.parametrize("body", [HANG, LOCKED], ids=["sleep", "lock"])
def test_a_hang_is_dumped_recorded_and_ended(start, body):
    started_s = time.monotonic()
    rank = start(body)
    assert rank.end() == -signal.SIGKILL
    assert time.monotonic() - started_s >= BUDGET_S + SETTLE_S
    log = rank.log()
    assert "watchdog: rank 3 has been in phase step 7 for 0 s (budget 0 s); stacks follow\n" in log
    assert log.index("stacks follow") < log.index("in stuck_here") < log.index("killing it")
    hang = rank.hang()
    assert (hang["rank"], hang["phase"], hang["step"], hang["host"]) == (3, "step", 7, os.uname().nodename)
    assert hang["budget_s"] == BUDGET_S and BUDGET_S <= hang["waited_s"] < 2 * BUDGET_S
    wait_until(lambda: not rank.watched())
    record = json.loads((rank.folder / "heartbeat" / "3.json").read_text())
    assert (record["pid"], record["phase"], record["step"]) == (rank.process.pid, "step", 7)
    assert record["since"] <= record["updated"] < hang["time"]


def test_loading_a_model_may_take_longer_than_a_step(start):
    rank = start(f"time.sleep({4 * (BUDGET_S + SETTLE_S)})")
    assert rank.end() == 0 and rank.log() == ""


def test_an_old_kernel_protects_as_well(start, without_pidfd):
    rank = start(HANG, watchdog=without_pidfd)
    assert rank.end() == -signal.SIGKILL
    assert "in stuck_here" in rank.log()


def test_a_stopped_rank_is_ended(start):
    """No stacks come of it, but the job's allocation is not held for ever."""
    rank = start("heart.beat('step', 7)\nos.kill(os.getpid(), signal.SIGSTOP)")
    assert rank.end() == -signal.SIGKILL
    assert "in state T" in rank.log()


def test_beats_keep_a_rank_alive_and_rarely_touch_the_disk(start):
    rank = start(
        """
until = time.monotonic() + 1.5 * budget_s
while time.monotonic() < until:
    for phase in ("validate", "save", "step"):
        heart.beat(phase, 8)
        time.sleep(0.01)
heart.beat("stop", 9)
heart.close()
""",
        AMPLE_S,
    )
    record, writes = rank.folder / "heartbeat" / "3.json", set()
    while rank.process.poll() is None:
        with suppress(FileNotFoundError):
            writes.add(record.stat().st_mtime_ns)
        time.sleep(0.005)
    assert rank.end() == 0, rank.log()
    assert len(writes | {record.stat().st_mtime_ns}) == 2  # at the start and at the end
    assert json.loads(record.read_text())["phase"] == "stop"
    assert rank.log() == "" and not (rank.folder / "hang.json").exists()


def test_a_beat_between_dump_and_kill_saves_the_rank(start):
    rank = start(
        """
heart.beat("validate", 5)
while not hang_file.exists():
    time.sleep(0.01)
while hang_file.exists():
    heart.beat("step", 6)
    time.sleep(0.02)
beat_for(1.2 * budget_s)
heart.close()
""",
        settle_s=20,
    )
    assert rank.end() == 0, rank.log()
    assert "in phase validate 5" in rank.log() and "goes on: it left phase validate 5" in rank.log()


HELD_PIPE = "if not os.fork():\n    time.sleep(600)\nheart.close()"


@pytest.mark.parametrize("leave", ["heart.close()", "with heart: pass", HELD_PIPE], ids=["close", "with", "held"])
def test_after_close_nothing_is_killed(start, leave):
    rank = start(f"{leave}\nassert heart.watchdog.returncode == 0\ntime.sleep(budget_s + 2 * settle_s)")
    assert rank.end() == 0
    assert rank.log() == ""


def test_a_forked_child_neither_closes_nor_keeps_the_watchdog(start):
    """A data loader's worker inherits the pipe."""
    rank = start("""
if not (child := os.fork()):
    heart.close()
    os._exit(0)
os.waitpid(child, 0)
heart.beat("step", 7)
if not os.fork():
    time.sleep(600)
time.sleep(600)
""")
    assert rank.end() == -signal.SIGKILL
    wait_until(lambda: not rank.watched())


@pytest.mark.parametrize(
    "body", ["beat_for(600)", "if os.fork():\n    beat_for(600)\ntime.sleep(600)"], ids=["alone", "forked"]
)
@pytest.mark.parametrize("old", [False, True])
def test_a_watchdog_goes_with_its_rank(start, without_pidfd, body, old):
    rank = start(body, budget_s=600, watchdog=without_pidfd if old else WATCHDOG)
    rank.process.kill()
    wait_until(lambda: not rank.watched())


@pytest.mark.parametrize("old", [False, True])
def test_no_process_but_the_parent_is_ever_signalled(tmp_path, without_pidfd, old):
    """The pid of a rank that is gone may be anybody's by now."""
    with subprocess.Popen(["sleep", "600"]) as stranger:
        settings = {"rank": 0, "pid": stranger.pid, "record": str(tmp_path / "0.json"), "settle_s": 0.1}
        settings |= {"hang_file": str(tmp_path / "hang.json"), "fixed_budget_s": 0.1}
        command = [sys.executable, str(without_pidfd if old else WATCHDOG), json.dumps(settings)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as watchdog:
            assert watchdog.wait(TIMEOUT_S) == 0
        assert stranger.poll() is None
        stranger.kill()


def test_signals_to_the_process_group_do_not_end_the_watchdog(start):
    """Slurm sends them to all of a task; sent here before the watchdog has run its first line."""
    ignore = "".join(f"signal.signal({number:d}, signal.SIG_IGN)\n" for number in OUTLIVED_SIGNALS - {signal.SIGUSR1})
    body = ignore + "for number in heartbeat.OUTLIVED_SIGNALS:\n    os.killpg(0, number)\n" + HANG
    rank = start(body)
    assert rank.end() == -signal.SIGKILL
    assert "killing it" in rank.log()


def test_time_under_suspension_does_not_count(start):
    """`scontrol suspend`, or a laptop that sleeps: the rank needs a moment after the watchdog to beat again."""
    rank = start("beat_for(600)", AMPLE_S)
    wait_until((rank.folder / "heartbeat" / "3.json").exists)
    os.kill(rank.process.pid, signal.SIGSTOP)
    wait_until(lambda: process_state(rank.watchdog) == "S")
    os.kill(rank.watchdog, signal.SIGSTOP)
    time.sleep(1.25 * AMPLE_S)
    os.kill(rank.watchdog, signal.SIGCONT)
    time.sleep(0.3 * AMPLE_S)
    os.kill(rank.process.pid, signal.SIGCONT)
    time.sleep(0.3 * AMPLE_S)
    assert rank.process.poll() is None and rank.watched()
    assert rank.log() == ""


def test_a_full_or_broken_pipe_does_not_disturb_training(start):
    rank = start("""
os.kill(heart.watchdog.pid, signal.SIGSTOP)
for step in range(20000):
    heart.beat("step", step)
os.kill(heart.watchdog.pid, signal.SIGKILL)
heart.watchdog.wait()
heart.beat("step", 1)
heart.close()
with open(folder / "one", "w"), open(folder / "other", "w"):  # one of them has the pipe's number now
    heart.beat("stop", 2)
assert (folder / "one").stat().st_size == (folder / "other").stat().st_size == 0
""")
    assert rank.end() == 0, rank.log()


def test_a_folder_that_is_gone_does_not_protect_a_hung_rank(start):
    rank = start("import shutil\nshutil.rmtree(folder / 'heartbeat')\nhang_file.mkdir()\n" + HANG)
    assert rank.end() == -signal.SIGKILL
    assert "stacks follow" in rank.log() and "in stuck_here" in rank.log()


def test_a_log_that_hangs_does_not_protect_a_hung_rank(start):
    """As a shared filesystem does: here a pipe that nobody reads."""
    fill = """
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(2, True)
"""
    rank = start(fill + HANG, stderr=subprocess.PIPE)
    assert rank.end() == -signal.SIGKILL
    assert rank.hang()["phase"] == "step"


def observed(phase: str, *gaps_s: float) -> Budget:
    budget = Budget()
    for gap_s in gaps_s:
        budget.observe(phase, gap_s)
    return budget


def test_an_unknown_phase_gets_time():
    assert Budget().seconds("start") == FIRST_S
    budget = observed("step", *[1.0] * (ENOUGH_GAPS - 1))
    assert budget.seconds("step") == FIRST_S
    budget.observe("step", 1.0)
    assert budget.seconds("step") == FLOOR_S
    assert budget.seconds("validate") == FIRST_S  # each phase has its own
    assert observed("save", *[1.0] * ENOUGH_GAPS).seconds("save") == SLOW_FLOOR_S


def test_a_first_save_that_took_long_may_take_longer():
    assert observed("save", FIRST_S).seconds("save") == TYPICAL_FACTOR * FIRST_S


def test_slow_steps_get_ten_times_the_typical_one():
    assert observed("step", *[60.0] * 20).seconds("step") == TYPICAL_FACTOR * 60
    steady = [60.0] * 20
    assert observed("step", *steady, 0.0, 0.0).seconds("step") == TYPICAL_FACTOR * 60


def test_one_outlier_counts_three_times_and_is_forgotten():
    budget = observed("step", 400.0, *[10.0] * (REMEMBERED_GAPS - 1))
    assert budget.seconds("step") == LONGEST_FACTOR * 400
    budget.observe("step", 10.0)
    assert budget.seconds("step") == FLOOR_S


def test_a_fixed_budget_holds_for_steps_and_validation_only():
    budget = Budget(45.0)
    for _ in range(10):
        budget.observe("step", 1000.0)
    assert {budget.seconds(phase) for phase in ("step", "validate")} == {45.0}
    assert {budget.seconds(phase) for phase in ("start", "convert", "save", "export", "stop")} == {FIRST_S}
