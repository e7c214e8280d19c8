"""Whose jobs they are, and on which cluster: a queue tells only of its own, and not always of other people's."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
from typing import NamedTuple

from hpcsft.errors import ClusterError, SubmissionError
from hpcsft.records import Submission
from hpcsft.rundir import RunDir
from hpcsft.slurm_client import run_client


class Owner(NamedTuple):
    """Who has submitted a run, and where; None for what an older version did not write down."""

    cluster_name: str | None
    user: str | None

    @classmethod
    def of(cls, submission: Submission) -> Owner:
        """The owner of what was submitted."""
        return cls(submission.cluster_name, submission.user)


class ThisCluster(NamedTuple):
    """The cluster whose Slurm answers here."""

    name: str
    version: str | None = None
    """Such as 22.05.8."""
    hides_jobs: bool = False
    """Does it show people their own jobs only (PrivateData)?"""


def this_user() -> str:
    """The name of the user who runs this; the number where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def this_cluster() -> ThisCluster:
    """The cluster here, asked once in the life of the process. ClusterError if Slurm does not answer."""
    return _asked(os.environ.get("SLURM_CONF"), os.environ.get("SLURM_CLUSTERS"))


@functools.cache
def _asked(conf: str | None, clusters: str | None) -> ThisCluster:
    return parse_cluster(run_client("scontrol", "show", "config"))


def parse_cluster(output: str) -> ThisCluster:
    """What `scontrol show config` tells of it. ClusterError if it names no cluster."""
    settings = dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", output, re.MULTILINE))
    name = settings.get("ClusterName")
    if not name:
        raise ClusterError("scontrol show config names no cluster", "try again when Slurm answers")
    private = settings.get("PrivateData", "").split(",")
    return ThisCluster(name, settings.get("SLURM_VERSION"), "jobs" in private or "all" in private)


def this_cluster_or_none() -> ThisCluster | None:
    """The same, and None where Slurm does not answer."""
    with contextlib.suppress(ClusterError):
        return this_cluster()
    return None


def why_unseen(owner: Owner, here: ThisCluster | None) -> str | None:
    """Why Slurm here can tell nothing of the jobs of `owner`; None if it can, or nobody knows better."""
    if here is None:
        return None
    if owner.cluster_name not in (None, here.name):
        return f"submitted on cluster {owner.cluster_name}; this is {here.name}"
    if here.hides_jobs and owner.user not in (None, this_user()) and os.getuid() != 0:
        return f"submitted by {owner.user}; cluster {here.name} shows you your own jobs only"
    return None


def refuse_elsewhere(run: RunDir, submission: Submission | None) -> None:
    """SubmissionError if the run's jobs are on another cluster than this: ids of jobs mean others here."""
    if submission is None or submission.cluster != "slurm" or submission.cluster_name is None:
        return
    here = this_cluster_or_none()
    if here is not None and here.name != submission.cluster_name:
        message = f"{run.path} was submitted on cluster {submission.cluster_name}; this is cluster {here.name}"
        raise SubmissionError(message, f"go to a login node of {submission.cluster_name}; nothing was changed")
