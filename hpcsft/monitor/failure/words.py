"""The words for a failure: a title that a person understands, and what to do next. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from hpcsft.monitor.failure.case import Case
from hpcsft.monitor.failure.signs import FAILED_NODE, HUNG, SHELL, SRUN, is_exception, kind_of

LONGEST_QUOTE = 160
"""Characters of a message in a title."""

RETRIES = re.compile(r"\(\d+ (?:time|node)s?; (?:cluster\.retries\.(?P<name>\w+) is (?P<limit>\d+)|(?P<why>[^)]+))\)$")
STUCK = re.compile(r"(\d+ attempts in a row) ended before anything new was saved")
WANTED = re.compile(r"[Tt]ried to allocate ([\d.]+ [KMGT]?i?B)")
COMMAND = re.compile(r"\bpython (?:launch|jobs)/\w+\.py ")


NEXT = {
    "out_of_memory": "ask for more GPUs, or some with more memory: {resume} --set cluster.{stage}.{more}=...{smaller}",
    "host_memory": "ask for more memory: {resume} --set cluster.{stage}.mem_gb=...",
    "nccl": "{logs} tells more; {resume} tries again, with --set cluster.env.NCCL_DEBUG=INFO it says which link failed",
    "disk_full": "make room, then {resume}",
    "node": "{resume} tries again{elsewhere}",
    "preemption": "{resume} goes on; a partition or qos that is not preempted would help",
    "time_limit": "{resume} --set cluster.{stage}.time=HH:MM:SS goes on with more time",
    "hang": "{logs} shows the stacks of its threads; {resume} goes on",
    "rank_died": "{logs} and the node's own log may tell why; {resume} tries again",
    "code": "{logs} shows the traceback; the run has its own copy of the code: mend {run_dir}/code, then {resume}",
    "data": "mend what it names, then {resume}; if the spec changes, python launch/submit.py SPEC.json",
    "not_finite": "submit it with other values: python launch/submit.py SPEC.json --set train.learning_rate=...",
    "judge": "{resume} asks again; what was judged is kept",
    "environment": "mend it where the job runs, or set cluster.setup anew: {resume} --set 'cluster.setup=[\"...\"]'",
    "cancelled": "{resume} goes on",
    "silent": "{logs} may tell why, and sacct where Slurm keeps accounts; {resume} tries again",
}
"""What to do about each kind, where nobody has given a better hint."""

SMALLER = (
    "; or submit it with a smaller train.micro_batch_size or data.max_length, a higher train.zero_stage, or "
    "train.offload"
)
"""What training can do with less memory."""

AFTER_HINT = {
    "not_finite": "submit what you change: python launch/submit.py SPEC.json",
    "data": "mend it, then {resume}; if the spec changes, python launch/submit.py SPEC.json",
}
"""What ends a hint that names no command; for other kinds it is `then {resume}`."""


def title(kind: str, case: Case) -> str:
    """One short line."""
    return f"{_what(kind, case)}{_used_up(kind, case)}"


def next_step(kind: str, case: Case) -> str:
    """What to do: the hint that was given for this very failure, or what helps with its kind; always with a command."""
    rank = f" --rank {case.rank}" if case.rank else ""
    words = {
        "run_dir": case.run_dir,
        "stage": case.stage,
        "resume": f"python launch/resume.py {case.run_dir}",
        "logs": f"python launch/logs.py {case.run_dir} {case.stage}{rank}",
        "more": "nodes" if case.stage == "train" else "gpus_per_node",
        "smaller": SMALLER if case.stage == "train" else "",
        "elsewhere": f", with --set cluster.sbatch.exclude={case.host.partition('.')[0]} on another node"
        if case.host
        else "",
    }
    if not case.own_hint:
        return NEXT[kind].format(**words)
    if COMMAND.search(case.own_hint):
        return case.own_hint
    return f"{case.own_hint}; {AFTER_HINT.get(kind, 'then {resume}').format(**words)}"


def _what(kind: str, case: Case) -> str:
    line, place = case.line or "", f"{case.where}{case.when}"
    if kind in ENDINGS:
        return ENDINGS[kind](case)
    if kind == "out_of_memory":
        wanted = WANTED.search(line)
        return f"out of memory on the GPU{f' ({wanted[1]} more were asked for)' if wanted else ''}{place}"
    if kind == "host_memory":
        killed = not case.failed and not is_exception(line)
        return f"{'killed by the kernel for memory' if killed else 'out of memory on the node'}{place}"
    if kind == "disk_full":
        return f"{'the disk quota is used up' if 'uota' in line else 'no space left on the disk'}{place}"
    said = _quoted(case)
    before = {
        "nccl": f"communication between ranks failed{place}",
        "code": f"error in the code{place}",
        "data": "bad data" if case.stage == "preprocess" else "bad input",
        "environment": "missing in the job's environment" if is_exception(line) else "the job's setup failed",
        "not_finite": "",
        "judge": "",
    }[kind]
    return ": ".join(part for part in (before, said) if part) or f"{case.stage} failed"


def _death(case: Case) -> str:
    if ended := SRUN.match(case.line or ""):
        end = ended["end"]
        itself = end.startswith("Exited with ")
        how = "was killed" if end == "Killed" else f"ended with {end[12:]}" if itself else f"died: {end}"
        return f"rank {ended['rank']} on {ended['host']} {how}"
    if case.line and case.line.startswith("Fatal Python error"):
        return f"a rank died{case.where}: {case.line}"
    return f"a rank died, and was missed by{case.where[1:]}" if case.where else "a rank died"


def _node(case: Case) -> str:
    if node := FAILED_NODE.match(case.line or ""):
        return f"the node {node[1]} failed"
    if "DUE TO NODE FAILURE" in (case.line or ""):
        return "a node failed"
    if not case.failed and kind_of(case.line or "") != "node":
        return "lost without notice: the node failed, or Slurm took it away"
    said = _quoted(case)
    what = "a GPU" if re.search("cuda|gpu|xid", said, re.IGNORECASE) else "the node"
    return f"{what} is not fit for use{case.where}{case.when}: {said}"


def _hang(case: Case) -> str:
    if hung := HUNG.match(case.line or ""):
        return f"rank {hung['rank']} hung in {hung['phase']}, for {hung['time_s']} s"
    return f"hung{case.where}"


def _time_limit(case: Case) -> str:
    progress = case.status.progress if case.status else None
    return "reached its time limit" + (f" at {progress.done} of {progress.total} {progress.unit}" if progress else "")


def _cancelled(case: Case) -> str:
    if case.cause == "cancelled":
        return "cancelled"
    return "stopped by hand" if case.status and case.status.by_hand else "cancelled with scancel"


ENDINGS: dict[str, Callable[[Case], str]] = {
    "rank_died": _death,
    "node": _node,
    "hang": _hang,
    "time_limit": _time_limit,
    "cancelled": _cancelled,
    "preemption": lambda case: "stopped by a signal" if case.cause == "signal" else "preempted",
    "silent": lambda case: "ended without a word" if case.began else "ended before it could say anything",
}
"""What says it all, without words of others."""


def _quoted(case: Case) -> str:
    """The first line of what was said; empty if nothing was."""
    line, told = case.line or "", (case.told or "").partition("\n")[0]
    if told and not (line.startswith("error: ") or is_exception(line) or kind_of(line)):
        line = ""
    shell = SHELL.match(line)
    text = shell["what"] if shell else line.removeprefix("error: ") or RETRIES.sub("", told).strip()
    return text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 3]}..."


def _used_up(kind: str, case: Case) -> str:
    """How often it was tried in vain."""
    if kind == "cancelled":
        return ""
    if stuck := STUCK.search(case.summary or ""):
        return f"; {stuck[1]} saved nothing new"
    found = RETRIES.search(case.summary or "")
    if not found:
        return ""
    if found["why"]:
        return f"; {found['why']}"
    limit = int(found["limit"])
    return f"; {limit} of {limit} retries are used" if limit else f"; cluster.retries.{found['name']} is 0"
