"""Prints logs: whole, their last lines, or what is appended until the stage is over."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hpcsft.cluster import local
from hpcsft.log_tail import Tail, for_terminal, offset_of_last
from hpcsft.logs.choose import STREAMS, Attempt, Choice, all_attempts
from hpcsft.plan import Plan
from hpcsft.records import StageStatus, Submission, read_json
from hpcsft.rundir import RunDir

POLL_INTERVAL_S = 0.5
QUIET_S = 5.0
"""What was cancelled or lost its driver may still say its last words for so long."""


class Printer:
    """Writes logs to stdout, and on stderr the name of the file that follows, whenever it is another."""

    def __init__(self, run: RunDir):
        self.run = run
        self.last: Path | None = None
        self.terminal = sys.stdout.isatty()

    def show(self, tail: Tail) -> bool:
        """Print what is new in a file. Was there anything?"""
        anything = False
        while data := tail.read():
            if tail.path != self.last:
                self.say(f"==> {tail.path.relative_to(self.run.path)} <==")
                self.last = tail.path
            sys.stdout.buffer.write(for_terminal(data) if self.terminal else data)
            anything = True
        sys.stdout.flush()
        return anything

    def say(self, text: str) -> None:
        """A line about the logs, which is not of them."""
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)


def show(run: RunDir, choice: Choice, stream: str, num_lines: int | None = None) -> tuple[Printer, list[Tail]]:
    """Print the chosen logs, or only their last lines; returns what is needed to follow the last attempt."""
    printer = Printer(run)
    tails: list[Tail] = []
    for attempt in choice.attempts:
        tails = _tails(attempt, choice.rank, stream, num_lines)
        for tail in tails:
            printer.show(tail)
    return printer, tails


def follow(run: RunDir, choice: Choice, stream: str, num_lines: int | None = None) -> str:
    """Print the chosen logs, and what is appended, over requeues, until the stage is over. Returns its state."""
    known = {attempt.folder for attempt in all_attempts(run)}
    printer, tails = show(run, choice, stream, num_lines)
    stage, index = choice.attempts[-1].stage, choice.attempts[-1].index
    news_s = time.monotonic()
    while True:
        state, certain = stage_state(run, stage, index)
        newer = [a for a in all_attempts(run, stage) if a.index == index and a.folder not in known]
        if _show_all(printer, tails):  # after the looks: what was written before them is printed before they count
            news_s = time.monotonic()
        if newer:
            known.add(newer[0].folder)
            tails = _tails(newer[0], choice.rank, stream)
            printer.say(f"==> attempt {newer[0].folder.name} has started <==")
        elif state and (certain or time.monotonic() - news_s > QUIET_S):
            return state
        else:
            time.sleep(POLL_INTERVAL_S)


def stage_state(run: RunDir, stage: str, index: int) -> tuple[str | None, bool]:
    """The state of one task if it is over (done, failed, waiting, cancelled), and whether it has said so itself.

    It goes by the run directory, and on this machine by the driver; Slurm is not asked.
    """
    plan = Plan.model_validate(read_json(run.plan))
    status = run.read_status(stage, index, plan.stage(stage).tasks)
    submission = run.read_submission()
    if status and status.state in ("done", "failed", "waiting") and not _submitted_since(status, submission):
        return status.state, True
    if run.cancelled.exists():
        return "cancelled", False
    gone = submission and submission.cluster == "local" and submission.jobs
    if gone and local.driver_alive(run, submission.jobs[-1].job_id, submission.host) is False:
        return "failed", False
    return None, False


def _submitted_since(status: StageStatus, submission: Submission | None) -> bool:
    """Will another attempt follow that has been submitted, and has not spoken yet?"""
    job = submission.latest().get(status.stage) if submission else None
    return bool(job) and not (
        status.job_id.partition("_")[0] == job.job_id or (status.by_hand and status.started >= job.submitted)
    )


def _tails(attempt: Attempt, rank: int, stream: str, num_lines: int | None = None) -> list[Tail]:
    """Also of files that are not there yet."""
    files = [attempt.folder / f"{rank}.{kind}" for kind in STREAMS[stream]]
    if num_lines is None:
        return [Tail(file) for file in files]
    return [Tail(file, offset=offset_of_last(file, num_lines) if file.exists() else 0) for file in files]


def _show_all(printer: Printer, tails: Sequence[Tail]) -> bool:
    return any([printer.show(tail) for tail in tails])
