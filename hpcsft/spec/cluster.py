"""The `cluster` section: where it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from hpcsft.spec.base import (
    SbatchValue,
    ScriptPath,
    Section,
    ShellLine,
    SlurmExpression,
    SlurmWord,
    TimeLimit,
    Variables,
)
from hpcsft.spec.environment import ContainerSpec, ModuleName, NetworkSpec
from hpcsft.spec.sbatch_options import why_not

Count = Annotated[int, Field(ge=0)]


class Resources(Section):
    """What one job asks for. In a stage's section, what is left out comes from the `cluster` section."""

    partition: SlurmWord | None = None
    """Slurm partition; null is the cluster's default."""

    account: SlurmWord | None = None
    """Account that is charged."""

    qos: SlurmWord | None = None
    """Quality of service."""

    constraint: SlurmExpression | None = None
    """Features that the nodes must have."""

    cpus_per_task: PositiveInt | None = None
    """CPUs of each task."""

    mem_gb: PositiveFloat | None = None
    """Memory per node in GB; null is the cluster's default."""

    time: TimeLimit | None = None
    """Time limit, as Slurm writes it: 12:00:00, 1-00:00:00."""


class ArrayResources(Resources):
    """A stage that runs as an array of one-task jobs."""

    gpus_per_node: Count | None = None
    """GPUs of each task of the array."""


class PreprocessResources(Resources):
    """Resources of preprocessing."""

    tasks: PositiveInt = 1
    """Size of the job array. The result does not depend on it."""


class TrainResources(Resources):
    """Resources of training."""

    nodes: PositiveInt = 1
    """Nodes of the job."""

    gpus_per_node: Count | None = None
    """GPUs of each node, one task for each; 0 trains on CPU processes."""

    tasks_per_node: PositiveInt | None = None
    """Processes per node; by default one per GPU. Only for training on CPUs."""


class RetriesSpec(Section):
    """How often a stage is tried again, by what ended the attempt; what the user's code or data did never is.

    The counts are those of one submission: resume.py starts them afresh.
    """

    preemption: Count = 1000
    """Preemptions, and signals that ask the job to stop."""

    timeout: Count = 100
    """Ends of the time limit: a long training needs as many as it is longer than one job."""

    node_failure: Count = 10
    """Ends without notice: a failed node, a job that Slurm took away without a word."""

    rank_failure: Count = 3
    """Processes that died or lost another one, while Slurm knew of nothing."""

    out_of_memory: Count = 5
    """Ends of training for lack of memory, each of which halves the micro batch; never more than it can be halved."""

    hang: Count = 3
    """Attempts that the watchdog ended."""

    bad_node: Count = 3
    """Attempts that ended because a node is not fit for use: a broken GPU, no room for temporary files, a wrong clock.
    The node is excluded from the next attempt; so many nodes at most, and never so many that too few are left."""

    no_progress: Count = 3
    """Attempts in a row, whatever ended them, that saved nothing new; 0 for no such limit."""


class ClusterSpec(Resources):
    """Where the jobs run. Values here are the defaults of all stages."""

    kind: Literal["auto", "slurm", "local"] = "auto"
    """slurm, local (this machine, in the background), or auto: slurm where there is an sbatch."""

    gpus_per_node: Count = 0
    """GPUs of each node for training. Where it is above 0, each task that generates or benchmarks
    takes one, and a local judge."""

    modules: list[ModuleName] = []
    """Modules (Lmod, Environment Modules) that each job loads first, in this order, besides those that were loaded
    where it was submitted. One that does not load ends the job at once."""

    venv: ScriptPath | None = None
    """Folder of the virtual environment whose Python runs the stages. null: the Python that submits."""

    conda: ScriptPath | None = None
    """Folder (prefix) of the conda environment whose Python runs the stages; conda itself is not needed there."""

    container: ContainerSpec | None = None
    """A container in which the stages run (Slurm only); null for none."""

    network: NetworkSpec = NetworkSpec()
    """The network between the nodes of training."""

    setup: list[ShellLine] = []
    """Shell lines that run at the start of every job, after modules and venv or conda. The only shell in a spec: they
    are run as they stand."""

    env: Variables = {}
    """Environment variables of every job. Of those where it was submitted jobs get the usual ones (PATH, modules,
    conda, CUDA, NCCL, HF, proxies, ...) and no others. Not for secrets: they are written into the run directory."""

    array_parallelism: PositiveInt = 16
    """Tasks of one array that may run at once."""

    retries: RetriesSpec = RetriesSpec()
    """How often a stage is tried again after a preemption, a time limit, a failure."""

    sbatch: dict[Annotated[str, Field(pattern=r"^[a-z][a-z-]*$")], SbatchValue] = {}
    """Further sbatch options by their long names, such as {"exclude": "n7", "exclusive": true}."""

    preprocess: PreprocessResources = PreprocessResources()
    """Resources of preprocessing (CPU only)."""

    train: TrainResources = TrainResources()
    """Resources of training."""

    generate: ArrayResources = ArrayResources()
    """Resources of each task that generates."""

    judge: ArrayResources = ArrayResources()
    """Resources of judging."""

    benchmark: ArrayResources = ArrayResources()
    """Resources of each task that benchmarks a checkpoint."""

    report: Resources = Resources()
    """Resources of the report."""

    @field_validator("sbatch", mode="before")
    @classmethod
    def _harmless_options(cls, value: Any) -> Any:
        for option in value if isinstance(value, dict) else ():
            if reason := why_not(option):
                raise ValueError(reason)
        return value

    @model_validator(mode="after")
    def _one_environment(self) -> ClusterSpec:
        given = [name for name in ("venv", "conda", "container") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: each says which Python runs the stages; leave all but one out")
        for name in self.network_variables():
            if name in self.env:
                raise ValueError(f"env: {name} is set by network; leave one of the two out")
        return self

    def network_variables(self) -> dict[str, str]:
        """Environment variables of training that `network` stands for."""
        variables = {}
        if self.network.interface:
            variables["NCCL_SOCKET_IFNAME"] = f"={self.network.interface}"  # exactly this one, not a beginning
            variables["GLOO_SOCKET_IFNAME"] = self.network.interface
        if self.network.infiniband is not None:
            variables["NCCL_IB_DISABLE"] = "0" if self.network.infiniband else "1"
        return variables

    def resolved(self, stage: str) -> dict[str, Any]:
        """The values of one stage's section, gaps filled from the cluster's own."""
        section: Resources = getattr(self, stage)
        values = section.model_dump()
        for key in values:
            if values[key] is None:
                values[key] = getattr(self, key, None)
        return values
