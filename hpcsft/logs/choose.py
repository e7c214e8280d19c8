"""Which log a person wants: of what failed first, else of what started last, or of what was asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hpcsft.errors import HpcsftError
from hpcsft.plan import Plan
from hpcsft.records import StageStatus, read_json
from hpcsft.rundir import RunDir

STREAMS = {"both": ("out", "err"), "out": ("out",), "err": ("err",)}


class Attempt(NamedTuple):
    """One attempt at one task of a stage: its folder of logs."""

    stage: str
    job_id: str
    """As Slurm writes it, with the number of the task if the job is an array."""
    restart: int
    folder: Path

    @property
    def index(self) -> int:
        """Which task of the stage."""
        return int(self.job_id.partition("_")[2] or 0)


class Wish(NamedTuple):
    """What was asked for; None is whatever is most telling."""

    stage: str | None = None
    index: int | None = None
    rank: int | None = None
    attempt: int | Literal["all"] | None = None
    """Counted from 1, the oldest first."""
    job_id: str | None = None
    stream: str = "both"


class Choice(NamedTuple):
    """Attempts at one task, the oldest first, and the rank whose logs are shown."""

    attempts: list[Attempt]
    rank: int


def choose(run: RunDir, wish: Wish) -> Choice:
    """The logs that are meant; HpcsftError names what there is when it is not there."""
    check_wish(run, wish)
    found = [attempt for attempt in all_attempts(run, wish.stage) if _is_wanted(attempt, wish)]
    if not found:
        raise _no_log(run, wish)
    failed = _failed_first(_readable_statuses(run), found, run)
    last, rank = failed or (found[-1], 0)
    task = [attempt for attempt in found if (attempt.stage, attempt.index) == (last.stage, last.index)]
    if wish.attempt is None:
        chosen = [last]
    elif wish.attempt == "all":
        chosen = task
    elif wish.attempt <= len(task):
        chosen = [task[wish.attempt - 1]]
    else:
        names = [f"{number} ({attempt.folder.name})" for number, attempt in enumerate(task, start=1)]
        raise HpcsftError(f"{_task_words(last)} has no attempt {wish.attempt}", f"attempts: {', '.join(names)}")
    if wish.rank is not None:
        rank = wish.rank
    if not any(files_of(attempt, rank, wish.stream) for attempt in chosen):
        folder = chosen[-1].folder
        ranks = sorted({int(path.stem) for path in folder.glob("*.out") if path.stem.isdigit()})
        raise HpcsftError(f"{folder.relative_to(run.path)} has no rank {rank}", f"ranks: {numbers_text(ranks)}")
    return Choice(chosen, rank)


def check_wish(run: RunDir, wish: Wish) -> None:
    """HpcsftError if the stage or the task is none of the run's."""
    if wish.stage is None:
        return
    try:
        plan = Plan.model_validate(read_json(run.plan))
    except ValueError:  # damaged, which is when one wants logs
        return
    if wish.stage not in plan.stage_names:
        near = difflib.get_close_matches(wish.stage, plan.stage_names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"its stages: {', '.join(plan.stage_names)}"
        raise HpcsftError(f"this run has no stage {wish.stage}", hint)
    tasks = plan.stage(wish.stage).tasks
    if wish.index is not None and wish.index >= tasks:
        raise HpcsftError(f"{wish.stage} has no task {wish.index}", f"tasks: {numbers_text(range(tasks))}")


def all_attempts(run: RunDir, stage: str | None = None) -> list[Attempt]:
    """Every attempt that has a folder of logs, that which started last last."""
    found = []
    for folder in run.logs.glob(f"{stage or '*'}/*_*"):
        job_id, _, restart = folder.name.rpartition("_")
        if restart.isdigit():
            attempt = Attempt(folder.parent.name, job_id, int(restart), folder)
            found.append((folder.stat().st_mtime, len(job_id), attempt))
    return [attempt for *_, attempt in sorted(found)]


def files_of(attempt: Attempt, rank: int, stream: str) -> list[Path]:
    """The logs of a rank that exist, of one stream or both."""
    files = [attempt.folder / f"{rank}.{kind}" for kind in STREAMS[stream]]
    return [file for file in files if file.exists()]


def numbers_text(numbers: Sequence[int]) -> str:
    """`0 to 7`, or the numbers one by one where some are missing."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers)) or "none"


def _is_wanted(attempt: Attempt, wish: Wish) -> bool:
    job = wish.job_id is None or attempt.job_id.partition("_")[0] == wish.job_id
    return job and wish.index in (None, attempt.index)


def _readable_statuses(run: RunDir) -> list[StageStatus]:
    """What tasks said last; nothing if one of the files is damaged, which is when one wants logs."""
    try:
        return list(run.read_statuses())
    except ValueError:
        return []


def _failed_first(statuses: Iterable[StageStatus], found: Sequence[Attempt], run: RunDir) -> tuple[Attempt, int] | None:
    """The attempt that failed first of those whose last word that is, and the rank that told it."""
    told = sorted((s for s in statuses if s.state == "failed" and s.log), key=lambda status: status.updated)
    folders = {attempt.folder: attempt for attempt in found}
    for status in told:
        log = run.path / (status.log or "")
        if log.parent in folders:
            return folders[log.parent], int(log.stem) if log.stem.isdigit() else 0
    return None


def _no_log(run: RunDir, wish: Wish) -> HpcsftError:
    what = wish.stage or "any stage"
    if wish.index is not None:
        what += f", task {wish.index}"
    if wish.job_id is not None:
        what += f", job {wish.job_id}"
    said = [path for path in run.submitit.glob(f"{wish.stage or '*'}/*_log.err") if path.stat().st_size]
    there = all_attempts(run)
    of_stage = [attempt for attempt in there if attempt.stage == wish.stage]
    if of_stage and wish.job_id is not None:
        hint = f"jobs with logs: {', '.join(dict.fromkeys(attempt.job_id for attempt in of_stage))}"
    elif of_stage:
        hint = f"tasks with logs: {numbers_text(sorted({attempt.index for attempt in of_stage}))}"
    elif said:
        hint = f"its batch script printed {max(said, key=lambda path: path.stat().st_mtime)}"
    elif there:
        hint = f"stages with logs: {', '.join(sorted({attempt.stage for attempt in there}))}"
    else:
        hint = "no stage has started yet"
    return HpcsftError(f"no log of {what}", hint)


def _task_words(attempt: Attempt) -> str:
    return attempt.stage + (f", task {attempt.index}" if "_" in attempt.job_id else "")
