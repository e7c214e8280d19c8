"""What kind of failure ended a stage, the line of the log that decided, and what to do next. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from hpcsft.attempt.causes import CAUSES
from hpcsft.attempt.journal import last
from hpcsft.attempt.outcome import decisive_failure
from hpcsft.monitor.failure.case import Case, make_case
from hpcsft.monitor.failure.deciding_line import deciding_line, plain
from hpcsft.monitor.failure.signs import SRUN, is_echo, is_exception, is_setup, kind_of
from hpcsft.monitor.failure.words import next_step, title
from hpcsft.records import Record, StageStatus

Kind = Literal[
    "out_of_memory",
    "host_memory",
    "nccl",
    "disk_full",
    "node",
    "preemption",
    "time_limit",
    "hang",
    "rank_died",
    "code",
    "data",
    "not_finite",
    "judge",
    "environment",
    "cancelled",
    "silent",
]
"""out_of_memory is the GPU's, host_memory the node's; nccl is all communication between ranks; data are missing inputs
as well; judge: there is no key, no network, no money, or no useful answer; environment: setup, modules, packages."""

KINDS: tuple[str, ...] = get_args(Kind)

LONGEST_LINE = 300

BY_STATE = {
    "OUT_OF_MEMORY": "host_memory",
    "TIMEOUT": "time_limit",
    "DEADLINE": "time_limit",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "PREEMPTED": "preemption",
    "CANCELLED": "cancelled",
}
"""Kinds by what Slurm calls the end."""

BY_CAUSE = {
    "preemption": "preemption",
    "signal": "preemption",
    "timeout": "time_limit",
    "node_failure": "node",
    "bad_node": "node",
    "rank_failure": "rank_died",
    "hang": "hang",
    "disk_full": "disk_full",
    "waiting": "judge",
    "environment": "environment",
    "cancelled": "cancelled",
}
"""Kinds by the journal's causes, where nothing tells more."""

OUTSIDE = ("node", "preemption", "time_limit", "cancelled", "host_memory")
"""Kinds that Slurm or the kernel may know better than a rank that was asked to stop."""

STUCK = re.compile(r"\d+ attempts in a row ended before anything new was saved; the last one: ")
NOTHING_MORE = ("rank_died", "code", None)
"""Kinds of lines that tell no more than that a rank has ended."""


class Failure(Record):
    """Why a stage has failed, or waits for a person."""

    kind: Kind
    title: str
    """One line that a person understands."""
    line: str | None
    """The line that decided, cut to 300 characters, without control characters; None if no line says why."""
    log: str | None
    """Where it stands, relative to the run directory."""
    line_number: int | None
    """Counted from 1."""
    rank: int | None
    host: str | None
    next: str
    """What to do, with commands that can be copied."""


def suspects(rows: Sequence[Mapping[str, Any]], launcher: Sequence[str]) -> list[int]:
    """The ranks whose logs may tell why an attempt ended, the most likely first, beside what srun printed.

    `rows` are the journal's of the attempt, `launcher` the last lines that the batch script and srun printed.
    """
    failed = decisive_failure(rows)
    ended = [int(match["rank"]) for line in launcher if (match := SRUN.match(plain(line)))]
    return list(dict.fromkeys([*([failed.get("rank", 0)] if failed else []), *ended[:1], 0]))


def name_failure(
    *,
    run_dir: str,
    stage: str,
    status: StageStatus | None,
    rows: Sequence[Mapping[str, Any]],
    slurm_state: str | None,
    message: str | None,
    log: str | None,
    lines: Sequence[str],
    first_line_number: int = 1,
) -> Failure:
    """Name the failure of one task of `stage`.

    `rows` are the journal's of the last attempt that did anything, `slurm_state` is what Slurm calls the job's end,
    `message` what the monitor says of the stage, `lines` the last lines of `log`, whose first has that number.
    """
    place = deciding_line(lines)
    if place is None and last(rows, "start") is None and not decisive_failure(rows):
        place = _last_word(lines)
    line = plain(lines[place]) if place is not None else None
    case = make_case(run_dir, stage, status, rows, slurm_state, message, line)
    if case.began and case.line and is_setup(case.line):  # what came after it did not need it
        place, case = None, case._replace(line=None)
    kind = _kind(case)
    return Failure(
        kind=kind,
        title=title(kind, case),
        line=_cut(plain(lines[place])) if place is not None else None,
        log=log,
        line_number=None if place is None else first_line_number + place,
        rank=case.rank,
        host=case.host,
        next=next_step(kind, case),
    )


def _last_word(lines: Sequence[str]) -> int | None:
    """What a setup that ended the job said last, in words of its own."""
    said = (index for index in reversed(range(len(lines))) if plain(lines[index]).strip())
    return next(
        (index for index in said if not plain(lines[index]).startswith(("srun: ", "slurmstepd", "submitit"))), None
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 3]}..."


def _kind(case: Case) -> str:
    """The journal's cause, refined by what Slurm and the line know better."""
    of_state, of_line = BY_STATE.get(case.slurm_state or ""), kind_of(case.line) if case.line else None
    by_hand = case.status is not None and case.status.by_hand and case.status.state == "waiting"
    if by_hand and not case.failed:
        return "cancelled"
    if case.cause in ("preemption", "signal"):
        known = [kind for kind in (of_state, of_line) if kind in OUTSIDE]
        return known[0] if known else "preemption"
    if case.cause == "rank_failure":
        known = [kind for kind in (of_state, of_line, kind_of(case.told or "")) if kind not in NOTHING_MORE]
        own = case.line is not None and is_exception(case.line) and not is_echo(case.line)
        return known[0] if known else "code" if own else "rank_died"
    if case.cause == "out_of_memory":
        known = [kind for kind in (of_line, kind_of(case.told or "")) if kind in ("out_of_memory", "host_memory")]
        return known[0] if known else of_state if of_state == "host_memory" else "out_of_memory"
    if case.cause in BY_CAUSE:
        return BY_CAUSE[case.cause]
    if case.cause is None and of_state:
        return of_state
    return _of_code(case, of_line)


def _of_code(case: Case, of_line: str | None) -> str:
    """The kind of an end that nothing but words explain."""
    if earlier := _earlier_cause(case.told or ""):
        return _kind(case._replace(cause=earlier, told=None))
    kind = (kind_of(case.told) if case.told and case.failed else None) or of_line
    if kind not in ("code", "rank_died", "cancelled", None):
        return kind
    if case.foreseen:
        return "judge" if case.stage == "judge" else "data"
    if case.line and is_exception(case.line):
        return "code"
    if not case.began and case.line:
        return "environment"
    if kind or case.failed:
        return kind or "code"
    return "code" if case.cause == "code" else "silent"


def _earlier_cause(told: str) -> str | None:
    """The cause of the attempt before, if this one ended only because of it."""
    rest = STUCK.sub("", told, count=1)
    named = (
        name
        for name, cause in CAUSES.items()
        if cause.budget and re.match(re.escape(cause.text) + r"(?: \(|: |$)", rest)
    )
    return next(named, None)
