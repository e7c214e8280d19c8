"""Which further options of sbatch a spec may give: all but those that have a source already, or would harm a run."""

from __future__ import annotations

SBATCH_OWNED = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "cpus-per-task": "cpus_per_task",
    "mem": "mem_gb",
    "time": "time",
    "gpus-per-node": "gpus_per_node",
    "gpus": "gpus_per_node",
    "nodes": "train.nodes",
    "ntasks": "train.tasks_per_node",
    "ntasks-per-node": "train.tasks_per_node",
}
"""sbatch options that have a field of their own in the `cluster` section."""

SBATCH_DERIVED = (
    "array",
    "chdir",
    "comment",
    "dependency",
    "error",
    "job-name",
    "kill-on-invalid-dep",
    "open-mode",
    "output",
    "signal",
    "export",
    "gpus-per-task",
    "parsable",
    "requeue",
    "no-requeue",
    "wait",
)
"""sbatch options that hpcsft sets itself."""

SBATCH_REFUSED = {
    "wrap": "it would replace the batch script",
    "uid": "jobs run as who submits them",
    "gid": "jobs run as who submits them",
    "export-file": "it would read the job's environment from a file; use cluster.env",
    "get-user-env": "it would read the login files of a user into the job; use cluster.env, modules or setup",
    "propagate": "it would carry the login node's limits into the job; use ulimit in cluster.setup",
    "bb": "it would hand directives to a burst buffer",
    "bbf": "it would hand a file of directives to a burst buffer",
    "input": "the batch script reads nothing",
    "nodefile": "give the nodes themselves: nodelist",
    "clusters": "the job would go to another cluster's queue, where nobody looks for it: submit there",
    "test-only": "nothing would be submitted; `hpcsft submit --dry-run` shows what would be",
    "quiet": "the job's id would not be told",
    "verbose": "what it prints is not read",
    "help": "nothing would be submitted",
    "usage": "nothing would be submitted",
    "version": "nothing would be submitted",
    "ignore-pbs": "the batch script has no such lines",
    "prolog": "it names a program to run; use cluster.setup",
    "epilog": "it names a program to run; use cluster.setup",
    "task-prolog": "it names a program to run; use cluster.setup",
    "task-epilog": "it names a program to run; use cluster.setup",
    "container": "the batch script has to stay outside, for it asks Slurm; use cluster.container",
    "bcast": "the code is on the shared filesystem already",
}
"""sbatch options that are not taken, and why."""


def why_not(option: str) -> str | None:
    """Why the sbatch option of this long name may not be given; None if it may.

    sbatch also takes a long name that is cut off, as long as it is clear which one is meant: so do we.
    """
    if option.startswith("container-"):
        return f"--{option} would put the batch script, which asks Slurm, into a container; use cluster.container"
    for name in (option, *(known for known in _ALL if option and known.startswith(option))):
        if name in SBATCH_OWNED:
            return f"--{name} has a field of its own: cluster.{SBATCH_OWNED[name]}"
        if name in SBATCH_DERIVED:
            return f"--{name} is set by hpcsft"
        if name in SBATCH_REFUSED:
            return f"--{name} is not taken: {SBATCH_REFUSED[name]}"
    return None


_ALL = (*SBATCH_OWNED, *SBATCH_DERIVED, *SBATCH_REFUSED)
