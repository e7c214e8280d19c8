"""One fault after the other, and what each of them cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tests.chaos.faults import Fault
from tests.chaos.follow import Resumption
from tests.chaos.live import ChaosError, LiveRun
from tests.chaos.schedule import GAP_STEPS, START_STEPS
from tests.chaos.watch import DONE, UNFINISHED


@dataclass
class Record:
    """What one fault did, a row of the table."""

    number: int
    fault: str
    step: int
    """The last step before it."""
    noticed: bool = False
    lost: int = 0
    """Steps done again because of it."""
    allowed: int = 0
    """Steps that might be done again."""
    attempts: int = 0
    """Attempts that came of it."""
    back_s: float | None = None
    """Seconds from the fault to the first step after it."""
    problems: list[str] = field(default_factory=list)


def inject_all(live: LiveRun, faults: Sequence[Fault], told: Callable[[Record], None]) -> list[Record]:
    """Inject `faults` one by one; `told` hears of each when it is over. ChaosError when the run does not go on."""
    live.wait_for("the first steps", lambda: live.follower.step >= START_STEPS)
    live.judged = len(live.follower.resumptions)
    records: list[Record] = []
    for number, fault in enumerate(faults, 1):
        live.wait_for("four healthy nodes", live.mend_nodes)
        live.wait_steps(live.rng.randint(*GAP_STEPS))
        records.append(_inject(live, fault, number))
        told(records[-1])
        if records[-1].back_s is None:
            raise ChaosError(records[-1].problems[-1])
    return records


def finish(live: LiveRun, timeout_s: float = 900.0) -> None:
    """Let the run come to its end, and the monitor say so."""
    with live.watch.allowing(DONE):
        live.wait_for("the end of training", lambda: live.follower.done, timeout_s)
        live.wait_for("the end of the run", lambda: live.watch.ask() != UNFINISHED, 120, poll_s=1.0)
        live.close()


def _inject(live: LiveRun, fault: Fault, number: int) -> Record:
    fault.prepare(live)
    known, heard = len(live.follower.resumptions), (len(live.problems), len(live.watch.problems))
    judged = live.judged  # an attempt between two faults is judged with the second
    record = Record(number, fault.name, live.follower.step)
    fault.acted_s = time.time()
    try:
        try:
            fault.inject(live)
        finally:
            fault.repair(live)
        live.wait_for("the first step after the fault", lambda: _is_back(live, fault, known))
        record.back_s = _seconds(live.follower.step_time) - fault.acted_s
    except (ChaosError, RuntimeError, TimeoutError) as error:
        live.complain(f"fault {number}, {fault.name}: {error}")
    resumptions = live.follower.resumptions[judged:]
    live.judged += len(resumptions)
    record.attempts = len(resumptions)
    for resumption in resumptions:
        record.lost += resumption.lost
        _judge(live, fault, resumption, record)
    record.problems = live.problems[heard[0] :] + live.watch.problems[heard[1] :]
    return record


def _is_back(live: LiveRun, fault: Fault, known: int) -> bool:
    """Has the run done a step since the fault, in a new attempt if there must be one?"""
    enough = len(live.follower.resumptions) > known or not fault.ends_attempt
    moment = live.follower.step_time
    return enough and bool(moment) and _seconds(moment) > fault.acted_s


def _judge(live: LiveRun, fault: Fault, resumption: Resumption, record: Record) -> None:
    """Were more steps lost than promised?"""
    every = live.scene.every_steps
    in_flight = resumption.before % every if resumption.saved < resumption.before // every * every else 0
    allowed = 0 if resumption.noticed else every * (1 + fault.falls_back) + in_flight
    record.noticed |= resumption.noticed
    record.allowed = max(record.allowed, allowed)
    where = f"fault {record.number}, {fault.name}: attempt {resumption.job_id}_{resumption.restart}"
    if fault.needs_notice and not resumption.noticed:
        live.complain(f"{where}: the ranks before it noticed nothing")
    if resumption.lost > allowed:
        live.complain(f"{where} lost {resumption.lost} steps; allowed {allowed}, last save {resumption.saved}")
    whole = resumption.saved if fault.whole_step is None else fault.whole_step
    if resumption.step < whole:
        live.complain(f"{where} went on from step {resumption.step}, though the checkpoint of step {whole} was whole")
    if resumption.told_lost != resumption.lost:
        live.complain(f"{where} lost {resumption.lost} steps, but tells of {resumption.told_lost}")


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
