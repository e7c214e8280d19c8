"""A spec becomes a plan: stages, their dependencies, array sizes, resources and the batch arithmetic.

Everything here is pure. Estimates that need facts about the model are in `estimate.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from hpcsft.errors import Problem, SpecError
from hpcsft.records import Record
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.base import parse_time_min

STAGES = ("preprocess", "train", "generate", "benchmark", "judge", "report")
"""All stages, in the order in which they run."""

DEFAULT_TIME = {
    "preprocess": "02:00:00",
    "train": "12:00:00",
    "generate": "04:00:00",
    "benchmark": "04:00:00",
    "judge": "04:00:00",
    "report": "00:15:00",
}
"""Time limits where neither the stage nor the cluster section gives one."""


class StagePlan(Record):
    """One stage: what it waits for and what it asks of the cluster."""

    name: Annotated[str, Field(pattern=r"^[a-z]+$")]
    depends_on: list[str]
    """Stages that must end well first."""
    tasks: int = Field(description="Size of the job array; 1 is a plain job.")
    nodes: int
    tasks_per_node: int
    gpus_per_node: int
    cpus_per_task: int | None
    mem_gb: float | None
    time: str
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    signal_s: int = 60
    """Slurm sends SIGUSR2 so many seconds before the time limit."""

    @property
    def time_min(self) -> int:
        """The time limit in whole minutes, rounded up."""
        return math.ceil(parse_time_min(self.time))

    @property
    def world_size(self) -> int:
        """Processes of one task of the array."""
        return self.nodes * self.tasks_per_node

    @property
    def gpu_hours_limit(self) -> float:
        """GPU-hours if every task ran to its time limit."""
        return self.tasks * self.nodes * self.gpus_per_node * self.time_min / 60


class BatchPlan(Record):
    """The batch arithmetic: global_batch_size = world_size x micro_batch_size x accumulation_steps."""

    global_batch_size: int
    micro_batch_size: int
    world_size: int
    accumulation_steps: int
    tokens_per_step: int
    """Positions of one optimizer step, filled or not: global_batch_size x max_length."""


class Plan(Record):
    """Everything that follows from the spec alone."""

    name: str
    digest: str
    stages: list[StagePlan]
    batch: BatchPlan
    warnings: list[str] = []
    """What will work, but not as well as the user may think."""

    def stage(self, name: str) -> StagePlan:
        """The stage called `name`; KeyError if the plan has none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    @property
    def stage_names(self) -> list[str]:
        """Names of the stages, in the order in which they run."""
        return [stage.name for stage in self.stages]


def make_plan(spec: ExperimentSpec) -> Plan:
    """The plan of `spec`; raises SpecError when its parts do not fit each other."""
    problems: list[Problem] = []
    train = _stage(spec, "train", depends_on=["preprocess"], problems=problems)
    stages = [_stage(spec, "preprocess", [], problems, tasks=spec.cluster.preprocess.tasks), train]
    if spec.evaluate:
        stages.append(_stage(spec, "generate", ["train"], problems, tasks=spec.evaluate.shards))
    if spec.benchmark:
        stages.append(_stage(spec, "benchmark", ["train"], problems, tasks=len(spec.benchmarked_checkpoints())))
    if spec.evaluate:  # last, for it may have to wait for a person
        stages.append(_stage(spec, "judge", ["generate"], problems))
    ends = [stage.name for stage in stages if stage.name in ("benchmark", "judge")]
    stages.append(_stage(spec, "report", ends or ["train"], problems))
    batch = _batch(spec, train.world_size, problems)
    if problems or batch is None:
        raise SpecError(spec.name, problems)
    return Plan(name=spec.name, digest=spec.digest(), stages=stages, batch=batch, warnings=list(_warnings(spec)))


def _warnings(spec: ExperimentSpec) -> Iterator[str]:
    if not spec.train.master_weights:
        yield (
            "train.master_weights is false: at a learning rate of 1e-5 a step of bfloat16 AdamW leaves about 98% of "
            "the weights as they were; this is for repeating a project that trained so, and for nothing else"
        )


def split_batch(global_batch_size: int, micro_batch_size: int, world_size: int) -> int:
    """Accumulation steps; raises ValueError that names the nearest valid global batch sizes."""
    unit = micro_batch_size * world_size
    if global_batch_size % unit == 0:
        return global_batch_size // unit
    below = global_batch_size // unit * unit
    nearest = [str(size) for size in (below, below + unit) if size > 0]
    raise ValueError(
        f"global_batch_size {global_batch_size} is no multiple of micro_batch_size {micro_batch_size} "
        f"x {world_size} ranks = {unit}; nearest: {' or '.join(nearest)}"
    )


def _batch(spec: ExperimentSpec, world_size: int, problems: list[Problem]) -> BatchPlan | None:
    train = spec.train
    try:
        steps = split_batch(train.global_batch_size, train.micro_batch_size, world_size)
    except ValueError as error:
        problems.append(Problem("train.global_batch_size", str(error)))
        return None
    return BatchPlan(
        global_batch_size=train.global_batch_size,
        micro_batch_size=train.micro_batch_size,
        world_size=world_size,
        accumulation_steps=steps,
        tokens_per_step=train.global_batch_size * spec.data.max_length,
    )


def _gpus(spec: ExperimentSpec, stage: str) -> int:
    """GPUs per node of a stage. Generating, judging and benchmarking use one per task; an endpoint needs none."""
    own = getattr(getattr(spec.cluster, stage), "gpus_per_node", 0)
    if own is not None:
        return own
    if stage == "train":
        return spec.cluster.gpus_per_node
    remote = stage == "judge" and spec.evaluate is not None and spec.evaluate.judge.kind != "local"
    return 0 if remote else min(1, spec.cluster.gpus_per_node)


def _stage(
    spec: ExperimentSpec, name: str, depends_on: list[str], problems: list[Problem], tasks: int = 1
) -> StagePlan:
    values = spec.cluster.resolved(name)
    gpus = _gpus(spec, name)
    tasks_per_node = values.get("tasks_per_node")
    if name == "train":
        if gpus and tasks_per_node not in (None, gpus):
            message = f"one task per GPU: leave it out or give {gpus}; given {tasks_per_node}"
            problems.append(Problem("cluster.train.tasks_per_node", message))
        if values["nodes"] > 1 and spec.cluster.kind == "local":
            message = f"the local cluster is this one machine: 1; given {values['nodes']}"
            problems.append(Problem("cluster.train.nodes", message))
    return StagePlan(
        name=name,
        depends_on=depends_on,
        tasks=tasks,
        nodes=values.get("nodes") or 1,
        tasks_per_node=(gpus or tasks_per_node or 1) if name == "train" else 1,
        gpus_per_node=gpus,
        cpus_per_task=values["cpus_per_task"],
        mem_gb=values["mem_gb"],
        time=values["time"] or DEFAULT_TIME[name],
        partition=values["partition"],
        account=values["account"],
        qos=values["qos"],
        constraint=values["constraint"],
    )
