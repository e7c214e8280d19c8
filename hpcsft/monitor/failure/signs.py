"""By which words a line of a log, or a message, tells what kind of failure it is about. Pure."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

from hpcsft.attempt.causes import BROKEN_GPU, LAUNCH_FAILED_LOG, LOST_PEER


class Weight(IntEnum):
    """How much a line says about why something ended; the lower, the more."""

    VERDICT = 0
    """Of the kernel or of Slurm, who have ended it."""
    CAUSE = 1
    """An exception that nobody caught, or an error that hpcsft reports."""
    DEATH = 2
    """Of what a process died, or what it said just before."""
    SETUP = 3
    """A line of the job's setup that went wrong, which need not matter."""
    STATUS = 4
    """An exit status, and nothing else."""
    ECHO = 5
    """Of the end of another process, or of a stop that somebody asked for."""


class Sign(NamedTuple):
    """Words by which a kind of failure is known."""

    kind: str
    outside: Weight | None
    """Weight of a line with these words that ends no traceback; None: it could be about anything."""
    words: str
    """In lower case, separated by bars."""


SIGNS = (
    Sign("preemption", Weight.VERDICT, "due to preemption"),
    Sign("time_limit", Weight.VERDICT, "due to time limit|due to deadline"),
    Sign("node", Weight.VERDICT, "due to node failure|srun: error: node failure"),
    Sign(
        "host_memory",
        Weight.VERDICT,
        "oom_kill|oom-kill|oom killed|out-of-memory handler|out of memory: killed process",
    ),
    Sign("host_memory", Weight.VERDICT, "exceeded memory limit|exceeded job memory|exceeded step memory"),
    Sign("node", Weight.CAUSE, "|".join(BROKEN_GPU)),
    Sign("node", Weight.CAUSE, "nvrm: xid|no cuda-capable device|cuda_error_ecc"),
    Sign("out_of_memory", Weight.DEATH, "cuda out of memory|hip out of memory|cuda error: out of memory"),
    Sign(
        "out_of_memory", Weight.DEATH, "cuda failure 'out of memory'|cuda failure 2 'out of memory'|status_alloc_failed"
    ),
    Sign("out_of_memory", Weight.DEATH, "torch.outofmemoryerror|torch.cuda.outofmemoryerror|cuda_error_out_of_memory"),
    Sign("out_of_memory", Weight.DEATH, "out of gpu memory|does not fit on the gpus"),
    Sign("host_memory", Weight.DEATH, "can't allocate memory|cannot allocate memory|bad_alloc"),
    Sign("host_memory", None, "memoryerror"),
    Sign("disk_full", Weight.DEATH, "no space left on device|disk quota exceeded|errno 28]|errno 122]"),
    Sign("disk_full", None, ". unexpected pos "),  # of torch.save, when the disk is full
    Sign("node", Weight.DEATH, "stale file handle|input/output error|transport endpoint is not connected"),
    Sign("code", Weight.DEATH, "cuda error:|device-side assert"),
    Sign("hang", None, "watchdog: rank "),
    Sign("nccl", Weight.CAUSE, "watchdog caught collective operation timeout|watchdog got stuck for"),
    Sign("nccl", Weight.DEATH, "nccl error|ncclinternalerror|ncclsystemerror|ncclremoteerror"),
    Sign("nccl", None, "nccl|distbackenderror|distnetworkerror|diststoreerror|connectfullmesh"),
    Sign("environment", None, "modulenotfounderror:|importerror:|no module named|is not installed"),
    Sign("environment", Weight.SETUP, ": command not found|lmod has detected|module(s) are unknown|no such module"),
    Sign("environment", Weight.SETUP, "unable to locate a modulefile|condaerror|environmentnamenotfound"),
    Sign("environment", Weight.SETUP, "could not find conda environment|error while loading shared libraries"),
    Sign("environment", Weight.SETUP, "cannot open shared object file|' not found (required by|error: execve()"),
    Sign("environment", Weight.SETUP, "nvidia driver on your system is too old|cuda driver version is insufficient"),
    Sign("environment", Weight.SETUP, "error: couldn't chdir"),
    Sign("rank_died", Weight.CAUSE, "fatal python error: segmentation fault|fatal python error: bus error"),
    Sign("rank_died", Weight.DEATH, "fatal python error"),
    Sign("rank_died", Weight.STATUS, "terminate called after throwing"),  # what() follows, if there is anything to say
)
"""In this order: the first that fits counts."""

BY_WORDS = tuple((words, sign) for sign in SIGNS for words in sign.words.split("|"))

EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*_?[A-Z]\w*(?:: |:?$)|(?:[A-Za-z_]\w*\.)+(?:error|timeout)(?:: |$)")
LOST_PEER_ERROR = re.compile(r"(?:\w+\.)*(?:RuntimeError|Connection\w*Error|BrokenPipeError)\b")
LED_BY_RANK = re.compile(r"\[rank(\d+)\]: ?")
SRUN = re.compile(r"srun: error: (?P<host>[^\s:]+): tasks? (?P<rank>\d+)[\d,-]*: (?P<end>.+)")
"""How srun tells the end of tasks on one node."""
CANCELLED = re.compile(r"slurmstepd\S*: error: \*\*\* JOB \S+ ON \S+ CANCELLED AT ")
SHELL = re.compile(r"\S+: line \d+: (?P<what>.+: (?:No such file or directory|Permission denied|.*not found))")
FAILED_NODE = re.compile(r"srun: error: Node failure on (\S+)")
HUNG = re.compile(r"watchdog: rank (?P<rank>\d+) has been in phase (?P<phase>\w+ \d+) for (?P<time_s>\d+) s")
NOT_FINITE = re.compile(r"\bnot finite\b|\bloss .*\bis (?:nan|-?inf)\b")


def sign_of(low: str) -> Sign | None:
    """The first sign whose words stand in the lower case text `low`."""
    for words, sign in BY_WORDS:  # a plain loop: logs are long
        if words in low:
            return sign
    return None


def kind_of(text: str) -> str | None:
    """What kind of failure the words of a line or message stand for; None if they tell of none in particular."""
    if match := SRUN.match(text):
        if match["end"].startswith("Exited with"):
            return None
        return "host_memory" if match["end"] == "Out Of Memory" else "rank_died"
    low = text.lower()
    if sign := sign_of(low):
        return sign.kind
    if CANCELLED.match(text):
        return "cancelled"
    if not_launched(text):
        return "node"
    if NOT_FINITE.search(low):
        return "not_finite"
    return "environment" if SHELL.match(text) else None


def not_launched(text: str) -> bool:
    """Does srun say that a node did not even start its tasks?"""
    return text.startswith("srun: ") and any(words in text.lower() for words in LAUNCH_FAILED_LOG)


def is_setup(text: str) -> bool:
    """Is it about a line of the job's setup, rather than about what an exception or hpcsft missed?"""
    return kind_of(text) == "environment" and not is_exception(text) and not text.startswith("error: ")


def is_exception(text: str) -> bool:
    """Does the line look like the last one of a traceback?"""
    return bool(EXCEPTION.match(text))


def is_echo(text: str) -> bool:
    """Does an exception only tell that another process has gone?"""
    return bool(LOST_PEER_ERROR.match(text)) and any(words in text.lower() for words in LOST_PEER)
