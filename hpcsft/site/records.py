"""What is known of a cluster: its configuration, partitions, nodes and accounts. Typed records, no reading."""

from __future__ import annotations

from hpcsft.records import Record


class NodeKind(Record):
    """Nodes of one partition that are alike."""

    count: int
    usable: int
    """So many of them are neither down nor drained."""
    cpus: int
    memory_mb: int
    gpus: int = 0
    gpu_type: str | None = None
    """As the gres calls it, such as a100; None where the site gives no type."""
    features: list[str] = []
    names: str = ""
    """A host list, such as n[1-4]."""


class Partition(Record):
    """One partition. None stands for no limit, and for no list where everybody is allowed."""

    name: str
    state: str = "UP"
    """UP, DOWN, DRAIN or INACTIVE."""
    default: bool = False
    max_time_min: float | None = None
    default_time_min: float | None = None
    min_nodes: int = 0
    max_nodes: int | None = None
    max_cpus_per_node: int | None = None
    max_memory_per_node_mb: int | None = None
    allow_accounts: list[str] | None = None
    deny_accounts: list[str] = []
    allow_qos: list[str] | None = None
    deny_qos: list[str] = []
    allow_groups: list[str] | None = None
    qos: str | None = None
    """The QOS whose limits hold for all jobs of the partition."""
    preempt_mode: str = "OFF"
    """OFF, REQUEUE, CANCEL, SUSPEND or GANG, as it counts here: the partition's own, or else the cluster's."""
    grace_s: int = 0
    priority_tier: int = 1
    root_only: bool = False
    nodes: list[NodeKind] = []


class Qos(Record):
    """A quality of service, with the limits that a job may hit."""

    name: str
    max_time_min: float | None = None
    max_nodes: int | None = None
    max_jobs_per_user: int | None = None
    max_submitted_per_user: int | None = None
    grace_s: int = 0
    preempt_mode: str | None = None
    """As in Partition; None: the cluster's."""
    flags: list[str] = []
    """In lower case, such as partitiontimelimit: its jobs may go beyond that limit of their partition."""
    preempts: list[str] = []
    """QOS whose jobs its own jobs may preempt, where PreemptType is qos."""


class Association(Record):
    """What this user may charge, and with which qualities of service."""

    account: str
    partition: str | None = None
    """None: in every partition."""
    qos: list[str] = []
    default_qos: str | None = None
    max_time_min: float | None = None
    max_jobs: int | None = None
    max_submitted: int | None = None


class Accounts(Record):
    """What sacctmgr tells this user."""

    default_account: str | None = None
    associations: list[Association] = []
    qos: list[Qos] = []
    enforced: list[str] = []
    """AccountingStorageEnforce: associations, limits, qos, safe, ... in lower case."""


class Site(Record):
    """One cluster, as this user sees it."""

    name: str
    version: str
    """Such as 22.05.8."""
    user: str
    groups: list[str] = []
    """Unix groups of the user."""
    kill_wait_s: int = 30
    """KillWait: from the SIGTERM at the time limit to the SIGKILL."""
    preempt_type: str | None = None
    """Such as partition_prio or qos; None where nothing preempts."""
    preempt_mode: str = "OFF"
    preempt_exempt_s: int = 0
    """PreemptExemptTime: a job that has run for less is not preempted."""
    sends_user_signal: bool = False
    """Preemption sends the signal that a job has asked for instead of SIGTERM (send_user_signal among the
    PreemptParameters, before that preempt_send_user_signal among the SlurmctldParameters)."""
    requeue: bool = True
    """JobRequeue: may a job go back into the queue that does not ask for it? Those of hpcsft ask."""
    enforces_limits_at_once: bool = False
    """EnforcePartLimits: does sbatch refuse what breaks a limit of its partition? Else that waits for ever."""
    max_array_size: int | None = None
    """One more than the highest index of an array."""
    max_submitted: int | None = None
    """MaxJobCount of the whole cluster."""
    forgets_after_s: int | None = None
    """MinJobAge: so long squeue still shows a job that has ended."""
    partitions: list[Partition] = []
    accounts: Accounts | None = None
    """None where the cluster keeps no accounts, or they do not answer."""
    accounts_problem: str | None = None
    """Why there are no accounts."""

    def partition(self, name: str | None) -> Partition | None:
        """The partition called `name`, or the default one for None; None if there is no such partition."""
        return next((p for p in self.partitions if (p.default if name is None else p.name == name)), None)
