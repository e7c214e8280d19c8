"""A preemption on purpose: does save -> requeue -> resume work on this very cluster, and how long does each part take?

A short training of the user's own spec is told to stop twice: by SIGUSR2, as Slurm does ahead of the time limit, and
by `scontrol requeue`, which ends it as a preemption without grace does. Afterwards it is cancelled.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from hpcsft import slurm_client
from hpcsft.attempt.fence import Token
from hpcsft.attempt.journal import Journal, Row, last
from hpcsft.cluster.submit import cancel_run, cluster_kind, submit_experiment
from hpcsft.errors import ClusterError, HpcsftError, StageError
from hpcsft.plan import make_plan
from hpcsft.records import Record, read_jsonl
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec, parse_spec

SAMPLE = 2000
"""Conversations that are preprocessed for a rehearsal."""
STEPS_BEFORE = 3
"""Steps that an attempt makes before it is disturbed."""
POLL_INTERVAL_S = 1.0
NOTICES: dict[str, Callable[[str], None]] = {
    "notice ahead of the time limit (SIGUSR2)": lambda job_id: slurm_client.signal_job(job_id, "USR2"),
    "preemption (scontrol requeue)": slurm_client.requeue_job,
}


class Rehearsed(Record):
    """One disturbance and what came of it; times in seconds."""

    notice: str
    save_s: float
    """From the signal in rank 0 to the published checkpoint."""
    queue_s: float
    """From the published checkpoint to the start of the next attempt: the end of the job, and its wait in the queue."""
    resume_s: float
    """From that start to its first new step: imports, the model, the checkpoint, one step."""
    saved_step: int
    lost_steps: int


def rehearsal_spec(spec: ExperimentSpec) -> ExperimentSpec:
    """The same training on a sample, without evaluation, saved only when it is told to stop."""
    values = spec.model_dump(mode="json")
    values.update(
        name=f"{spec.name}-rehearsal-{time.strftime('%H%M%S')}"[-64:].lstrip("-."), evaluate=None, notify=None
    )
    values["data"]["sample"] = spec.data.sample if isinstance(spec.data.sample, int) else SAMPLE
    values["train"]["epochs"] = 1000
    values["train"]["checkpoint"] = {"every_steps": 10**6, "keep_last": 1}
    return parse_spec(values)


def rehearse(spec: ExperimentSpec, argv: list[str], say: Callable[[str], None] = print) -> list[Rehearsed]:
    """Run the rehearsal to its end and return what was seen. Raises HpcsftError when the run does not come back."""
    spec = rehearsal_spec(spec)
    if cluster_kind(spec) != "slurm":
        raise HpcsftError("a rehearsal needs Slurm: there is nothing to preempt here", "run it on a login node")
    run, jobs, _ = submit_experiment(spec, make_plan(spec), ["preprocess", "train"], argv)
    job_id = jobs[-1].job_id
    say(f"run directory  {run.path}\npreprocess and train are jobs {jobs[0].job_id} and {job_id}; waiting for {job_id}")
    try:
        found = []
        for restart, (notice, disturb) in enumerate(NOTICES.items()):
            _wait(run, job_id, lambda restart=restart: _new_steps(run, job_id, restart) >= STEPS_BEFORE)
            say(f"{time.strftime('%H:%M:%S')} {notice}")
            disturb(job_id)
            _wait(run, job_id, lambda restart=restart: _new_steps(run, job_id, restart + 1) >= 1)
            found.append(_measure(run, job_id, restart, notice))
        return found
    finally:
        cancel_run(run)


def rehearsal_text(rehearsed: Sequence[Rehearsed]) -> str:
    """What was seen, for people."""
    lines = ["", f"{'':<42}{'save':>8}{'queue':>8}{'resume':>8}{'lost steps':>12}"]
    for row in rehearsed:
        times = "".join(f"{seconds:>6.1f} s" for seconds in (row.save_s, row.queue_s, row.resume_s))
        lines.append(f"{row.notice:<42}{times}{row.lost_steps:>12}")
    lost = sum(row.lost_steps for row in rehearsed)
    lines += ["", f"{lost} steps were lost" if lost else "no step was lost: this cluster's preemptions are survived"]
    return "\n".join(lines)


def _rows(run: RunDir, job_id: str, restart: int) -> list[Row]:
    return Journal(run, "train", 0, 1, Token(job_id=job_id, restart=restart)).of_attempt()


def _new_steps(run: RunDir, job_id: str, restart: int) -> int:
    """Steps that an attempt has made beyond where it began."""
    resumed = last(_rows(run, job_id, restart), "resumed")
    if not resumed:
        return 0
    return max((row["step"] for row in read_jsonl(run.metrics)), default=0) - resumed["step"]


def _wait(run: RunDir, job_id: str, condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; StageError if the run ends before."""
    facts, ended = None, False
    while not condition():
        for status in run.read_statuses():
            if status.state == "failed":
                raise StageError(f"{status.stage} failed: {status.message}", status.hint or f"see {run.path}/logs")
        with contextlib.suppress(ClusterError):  # a busy controller is asked again
            facts = slurm_client.query_job(job_id)
            ended = facts is None or facts.state in slurm_client.TERMINAL
        if ended:
            raise StageError(f"job {job_id} ended as {facts.state if facts else 'unknown'}", f"see {run.path}/submitit")
        time.sleep(POLL_INTERVAL_S)


def _measure(run: RunDir, job_id: str, restart: int, notice: str) -> Rehearsed:
    before, after = _rows(run, job_id, restart), _rows(run, job_id, restart + 1)
    told, saved, started, resumed = (
        last(before, "notice"),
        last(before, "saved"),
        last(after, "start"),
        last(after, "resumed"),
    )
    if not (told and saved and started and resumed):
        reason = "the signal never came to the ranks" if not told else "nothing was saved after the signal"
        raise StageError(f"{notice}: {reason}", f"see {run.log_folder('train', job_id, restart)}")
    first = next(row for row in read_jsonl(run.metrics) if row["step"] == resumed["step"] + 1)
    return Rehearsed(
        notice=notice,
        save_s=_between(told, saved),
        queue_s=_between(saved, started),
        resume_s=_between(started, first),
        saved_step=saved["step"],
        lost_steps=resumed["lost_steps"],
    )


def _between(first: Row, second: dict[str, Any] | Row) -> float:
    return (datetime.fromisoformat(second["time"]) - datetime.fromisoformat(first["time"])).total_seconds()
