"""A smoke run: two steps of the real spec on one node, and every other stage on a handful of rows, before the real run.

Its name and its directory follow from the spec. Who was interrupted gives the command again and goes on watching the
same one; one that did not pass is moved aside.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal

from hpcsft import slurm_client
from hpcsft.cluster.held import done_stages, in_hands, jobs_in_queue
from hpcsft.cluster.submit import cancel_run, check_stages, submit_experiment
from hpcsft.errors import EXIT_UNFINISHED, ClusterError, StageError
from hpcsft.evaluate.prompts import load_prompts
from hpcsft.inputs import what_the_judge_lacks
from hpcsft.plan import Plan, make_plan, split_batch
from hpcsft.records import StageStatus, write_text
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec, parse_spec
from hpcsft.spec.base import parse_time_min

NUM_STEPS = 2
"""Optimizer steps: the second is the first one that has moments, and the first that is not a compilation."""
CONVERSATIONS_PER_ROW = 16
"""Conversations are drawn for so many in each row of max_length; with shorter ones it may come to one step only."""
NUM_VALIDATION = 32
"""Conversations that are held out, about."""
NUM_PROMPTS = 4
MAX_NEW_TOKENS = 64
BENCHMARK_LIMIT = 4
"""Rows of each task."""
TIME_MIN = 30
"""Minutes of each stage, at most."""
VALID_S = 24 * 3600
"""For so long a smoke run that has passed counts."""
CHECKS_AT_LEAST = {"echo": 0.5, "empty": 0.5, "leftover": 0.5, "loop": 1.0, "cut": 1.0}
"""Of four short answers after two steps half may be bad, and all cut: more is what a smoke run is there to tell."""


def smoke_spec(spec: ExperimentSpec) -> ExperimentSpec:
    """The same experiment with its resources, on one node and on a handful of everything. Its prompts are in a file of
    their own, which `write_smoke_prompts` makes."""
    values = spec.model_dump(mode="json")
    train = make_plan(spec).stage("train")
    micro_batch_size, ranks = spec.train.micro_batch_size, train.tasks_per_node
    accumulation_steps = min(2, split_batch(spec.train.global_batch_size, micro_batch_size, train.world_size))
    global_batch_size = micro_batch_size * ranks * accumulation_steps
    sample = NUM_STEPS * global_batch_size * CONVERSATIONS_PER_ROW
    if isinstance(spec.data.sample, int):
        sample = min(sample, spec.data.sample)
    values.update(name=f"{spec.name[:58]}-smoke", notify=None)
    share = spec.data.validation if isinstance(spec.data.validation, float) else 1.0
    values["data"].update(sample=sample, validation=min(share, NUM_VALIDATION / sample, 0.5))
    values["train"].update(epochs=1, max_steps=NUM_STEPS, global_batch_size=global_batch_size)
    values["train"]["checkpoint"].update(every_steps=10**6, every_minutes=None, keep_last=1)
    _shrink_cluster(spec, values["cluster"])
    if spec.evaluate:
        evaluate = values["evaluate"]
        evaluate.update(
            prompts=str(_prompts_file(spec)),
            shards=1,
            checkpoints=_reached(spec.evaluate.checkpoints),
            checks={name: max(least, getattr(spec.evaluate.checks, name)) for name, least in CHECKS_AT_LEAST.items()},
        )
        evaluate["generation"]["max_new_tokens"] = min(MAX_NEW_TOKENS, spec.evaluate.generation.max_new_tokens)
    if spec.benchmark:
        limit = min(BENCHMARK_LIMIT, spec.benchmark.limit or BENCHMARK_LIMIT)
        values["benchmark"].update(limit=limit, checkpoints=_reached(spec.benchmark.checkpoints))
    return parse_spec(values)


def _shrink_cluster(spec: ExperimentSpec, cluster: dict[str, Any]) -> None:
    cluster["train"]["nodes"] = 1
    cluster["preprocess"]["tasks"] = 1
    for stage in make_plan(spec).stages:
        own_min = parse_time_min(stage.time)
        cluster[stage.name]["time"] = stage.time if own_min <= TIME_MIN else f"00:{TIME_MIN}:00"


def _reached(checkpoints: str | list[str]) -> str | list[str]:
    """The checkpoints that there are after one epoch, in place of those that are wanted."""
    if isinstance(checkpoints, str):
        return checkpoints
    return list(dict.fromkeys(name if name == "base" else "epoch-1" for name in checkpoints))


def _smoke_prompts(spec: ExperimentSpec) -> str:
    prompts = load_prompts(spec.evaluate.prompts)[:NUM_PROMPTS] if spec.evaluate else []
    return json.dumps([prompt.model_dump() for prompt in prompts], ensure_ascii=False, indent=2) + "\n"


def _prompts_file(spec: ExperimentSpec) -> Path:
    digest = hashlib.sha256(_smoke_prompts(spec).encode()).hexdigest()[:16]
    return RunDir(spec.run_path).cache / "smoke" / f"prompts-{digest}.json"


def write_smoke_prompts(spec: ExperimentSpec) -> None:
    """Write the first few prompts of the real `spec` to where its smoke run looks for them."""
    if spec.evaluate:
        file = _prompts_file(spec)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_text(file, _smoke_prompts(spec))


def smoke_stages(spec: ExperimentSpec, plan: Plan, stages: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Which of `stages` (None: all) a smoke run has, and what the judge lacks: without that it would wait for it."""
    wanted = check_stages(plan, stages)
    lacks = list(what_the_judge_lacks(spec.evaluate.judge)) if spec.evaluate and "judge" in wanted else []
    without = ("judge", "report") if lacks else ()
    return [name for name in wanted if name not in without], lacks


def smoke(
    spec: ExperimentSpec,
    stages: Sequence[str] | None,
    argv: list[str],
    watch: Callable[[RunDir, bool], int],
    quiet: bool = False,
) -> None:
    """Submit the smoke run of `stages` (None: all) of `spec`, and `watch` it.

    `watch` shows a run to its end and returns the monitor's exit code, as `monitor.app.watch_to_the_end` does. With
    `quiet` nothing goes to stdout. Returns when the run has passed; its logs stay. StageError tells why it has not, or
    that it is not over.
    """

    def say(text: str) -> None:
        print(text, file=sys.stderr if quiet else sys.stdout, flush=True)

    small = smoke_spec(spec)
    plan = make_plan(small)
    wanted, lacks = smoke_stages(small, plan, stages)
    run = RunDir(small.run_path)
    earlier = _earlier(run, plan, wanted)
    if earlier == "passed":
        say(f"a smoke run of this spec passed {_age_s(run) / 3600:.1f} h ago; move {run.path} away for another")
        return
    if earlier == "ended":
        say(f"an earlier smoke run did not pass, or long ago; it is in {_move_away(run)} now, without its weights")
    write_smoke_prompts(spec)
    steps = f"{NUM_STEPS} steps on one node with {small.train.global_batch_size} rows each, then {NUM_PROMPTS} prompts"
    say(f"smoke run  {run.path}\n{steps}; nothing else is submitted before it has passed")
    for lack in lacks:
        say(f"without judge and report: {lack.partition(';')[0]}")
    run, jobs, new = submit_experiment(small, plan, wanted, argv)
    say(f"{'submitted' if new else 'goes on'}: " + ", ".join(f"{job.stage} {job.job_id}" for job in jobs))
    code = watch(run, quiet)
    if set(wanted) <= done_stages(plan, run):
        _remove_weights(run)
        say("the smoke run has passed")
    elif code == EXIT_UNFINISHED:
        raise StageError("the smoke run is not over; nothing else was submitted", "the same command goes on with it")
    else:
        error = _failure(run)
        _end_jobs(run)
        raise error


def _earlier(run: RunDir, plan: Plan, wanted: Sequence[str]) -> Literal["none", "runs", "passed", "ended"]:
    """What has become of the smoke run of the same spec. One that passed long ago has ended: today may be another."""
    if not run.spec.exists():
        return "none"
    if set(wanted) <= done_stages(plan, run):
        return "passed" if _age_s(run) < VALID_S else "ended"
    ended = run.cancelled.exists() or any(status.state in ("failed", "waiting") for status in run.read_statuses())
    return "runs" if not ended and in_hands(run) else "ended"


def _age_s(run: RunDir) -> float:
    return time.time() - max(file.stat().st_mtime for file in run.status.glob("*.json"))


def _move_away(run: RunDir) -> Path:
    with contextlib.suppress(ClusterError):
        cancel_run(run)
    _remove_weights(run)
    names = (f".{run.path.name}.{number}" for number in count(1))  # hidden, so that its name means the next one
    place = next(place for name in names if not (place := run.path.with_name(name)).exists())
    run.path.rename(place)
    return place


def _end_jobs(run: RunDir) -> None:
    """End what is left of it, without a word: that it was cancelled would hide why it failed.

    Not if Slurm does not answer, which says nothing of what went wrong.
    """
    with contextlib.suppress(ClusterError):
        slurm_client.cancel_jobs(jobs_in_queue(run))  # the driver of this machine ends by itself


def _remove_weights(run: RunDir) -> None:
    """What of it is large, and of no use."""
    for folder in (run.checkpoints, run.models):
        shutil.rmtree(folder, ignore_errors=True)


def _failure(run: RunDir) -> StageError:
    ended: list[StageStatus] = [status for status in run.read_statuses() if status.state in ("failed", "waiting")]
    if not ended:
        hint = f"python launch/monitor.py {run.path} --once tells more"
        return StageError("the smoke run did not pass; nothing else was submitted", hint)
    first = ended[0]
    what = "failed" if first.state == "failed" else "waits for a person"
    message = f"the smoke run {what} in {first.stage}: {first.message}; nothing else was submitted"
    return StageError(message, first.hint or f"python launch/logs.py {run.path} {first.stage}")
