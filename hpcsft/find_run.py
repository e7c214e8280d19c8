"""From what a person types to runs: a run directory, a run's name or the beginning of one, or the id of a job."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from hpcsft import slurm_client
from hpcsft.errors import ClusterError, RunNotFoundError
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.runs_dirs import HERE, known_runs, known_runs_dirs, runs_in, submitted_s

JOB = re.compile(r"(?P<job>[0-9]+|local-[0-9]+)(?:_(?P<index>[0-9]+|\[.*\]))?")
"""A job id as Slurm, submit and the monitor write it, of one task of an array or of all."""
FIELDS = re.compile(r"([A-Z][\w:/]*)=(.*?)(?=\s+[A-Z][\w:/]*=|\s*$)")
"""Of `scontrol show job -o`; a value may hold spaces."""
MOST_LISTED = 12
HINT = "hpcsft runs lists those that are known; or name its directory"
RUN_HELP = "a run directory, the name of a run or its beginning, or the id of one of its jobs"
"""What --help says of RUN."""


class Found(NamedTuple):
    """A run, and the part of it that was named."""

    run: RunDir
    stage: str | None = None
    """The stage of the job, if a job was named that is of one stage only."""
    index: int | None = None
    """The task of the array, if one was named."""
    job_id: str | None = None
    """The job, without the number of a task, if one was named."""


def find_run(word: str) -> RunDir:
    """The run that `word` names; see `find`."""
    return find(word).run


def find_runs(words: Sequence[str]) -> list[RunDir]:
    """The runs that `words` name, each once; a folder of runs stands for all of its runs, the newest first.

    Without a word it is the run that was submitted last in any known place. Raises as `find` does.
    """
    if not words:
        return [newest_run()]
    found: dict[Path, RunDir] = {}
    for word in words:
        for run in _runs_in(word) or [find_run(word)]:
            found.setdefault(run.path, run)
    return list(found.values())


def newest_run() -> RunDir:
    """The run that was submitted last in any known place; RunNotFoundError if there is none."""
    newest = next((run for run in known_runs() if _is_run(run.path)), None)
    if newest is None:
        raise RunNotFoundError(f"no run in {_places()}", "name a run directory")
    return newest


def find(word: str, ask_slurm: bool = True) -> Found:
    """The run that `word` names, and the stage and task if it is the id of a job.

    A directory that exists is never the beginning of a name, and a word that ends with a slash is a directory's only.
    Raises RunNotFoundError if it names none or more than one, and ClusterError if only Slurm could tell and it does
    not answer.
    """
    if not word:
        raise RunNotFoundError("no run has an empty name", HINT)
    name = word.rstrip("/") or word
    if "/" in name or name in (".", "..") or _is_run(name):
        return Found(_opened(Path(word), word))
    runs = known_runs()
    job = JOB.fullmatch(word)
    if job and (found := _of_job(job["job"], job["index"], runs)):
        return _the_only(found, name, "has a job of this id")
    if named := _of_name(word, runs):
        return _the_only([Found(run) for run in named], name, "is called so or begins so")
    if job and ask_slurm and name[0].isdigit() and (told := _from_slurm(job["job"], job["index"])):
        return told
    if os.path.isdir(name):
        if _runs_in(name) == []:
            raise RunNotFoundError(f"no run in {name}/", HINT)
        _opened(Path(name), word)
    raise _none_such(word, runs, bool(job))


def _of_job(job_id: str, index: str | None, runs: Iterable[RunDir]) -> list[Found]:
    """The runs for which a job of this id was submitted. All are read: two clusters may share a filesystem."""
    found = []
    number = int(index) if index and index.isdigit() else None
    for run in runs:
        try:
            if job_id.encode() not in run.submission.read_bytes():
                continue
            jobs = read_json(run.submission)["jobs"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not submitted, not ours, or no run after all
        if stages := {job["stage"] for job in jobs if job["job_id"] == job_id}:
            found.append(Found(run, stages.pop() if len(stages) == 1 else None, number, job_id))
    return found


def _of_name(word: str, runs: Sequence[RunDir]) -> list[RunDir]:
    """The runs of this directory name, else of this name in their spec, else those that begin so.

    With a slash at its end only the first, and of a directory that exists not the last.
    """
    name = word.rstrip("/")
    whole = [run for run in runs if run.path.name == name]
    if whole or word != name:
        return whole
    plain = [run for run in runs if run.path.name.rpartition("-")[0] == name]
    if plain or os.path.isdir(name):
        return plain
    return [run for run in runs if run.path.name.startswith(name)]


def _from_slurm(job_id: str, index: str | None) -> Found | None:
    """The run of a job that no submission.json knows; None if Slurm does not know it, or it is no job of hpcsft."""
    if shutil.which("scontrol") is None:
        return None
    word = f"{job_id}_{index}" if index and index.isdigit() else job_id
    try:
        output = slurm_client.run_client("scontrol", "show", "job", "-o", word, ignore=("Invalid job id",))
    except ClusterError as error:
        message = f"job {word} is of no run in {_places()}, and Slurm cannot be asked: {error.message}"
        raise ClusterError(message, error.hint) from None
    return parse_job(output, whole_array=word)


def parse_job(output: str, whole_array: str = "") -> Found | None:
    """The run of the first line of `scontrol show job -o`; None if it is no job of hpcsft.

    The task of the array is told unless the job is asked for by the id of the array, `whole_array`.
    """
    fields = dict(FIELDS.findall(output.partition("\n")[0]))
    origin, name, stage = (*fields.get("Comment", "").split(":"), "", "")[:3]
    path = Path(fields.get("WorkDir", "")).parent
    if origin != "hpcsft" or path.name != name:
        return None
    index = fields.get("ArrayTaskId", "")
    one = index.isdigit() and fields.get("ArrayJobId") != whole_array
    return Found(_opened(path), stage, int(index) if one else None, fields.get("ArrayJobId") or fields.get("JobId"))


def _the_only(found: Sequence[Found], word: str, what: str) -> Found:
    """The one that was found; RunNotFoundError lists them if they are several."""
    if len(found) == 1:
        return found[0]._replace(run=_opened(found[0].run.path))
    lines = [f"{word}: more than one run {what}"]
    width = max(len(each.run.path.name) for each in found[:MOST_LISTED])
    for run, *_ in found[:MOST_LISTED]:
        when = datetime.fromtimestamp(submitted_s(run) or 0).strftime("%Y-%m-%d %H:%M")
        lines.append(f"  {run.path.name:<{width}}  submitted {when}  {run.path}")
    if len(found) > MOST_LISTED:
        lines.append(f"  and {len(found) - MOST_LISTED} older ones")
    raise RunNotFoundError("\n".join(lines), "name one of them, as far as it differs, or its directory")


def _none_such(word: str, runs: Sequence[RunDir], job: bool) -> RunNotFoundError:
    if job:
        return RunNotFoundError(f"no job {word} of a run in {_places()}, nor in Slurm", "or name its run directory")
    names = [run.path.name for run in runs]
    if near := _nearest(word, names):
        return RunNotFoundError(f"no run {word} in {_places()}", f"did you mean {near}?")
    return RunNotFoundError(f"no run {word} in {_places()}", HINT)


def _nearest(word: str, names: Sequence[str]) -> str | None:
    """The name that is nearest to a mistyped one, which may lack the hash."""
    whole = {name: name for name in reversed(names)} | {name.rpartition("-")[0]: name for name in reversed(names)}
    near = difflib.get_close_matches(word, whole, n=1, cutoff=0.7)
    return whole[near[0]] if near else None


def _runs_in(word: str) -> list[RunDir] | None:
    """All runs of a folder of runs; None if `word` is no folder, or none that can be read, or a run."""
    if _is_run(word) or not os.path.isdir(word):
        return None
    try:
        return runs_in(Path(word))
    except OSError:
        return None


def _opened(path: Path, word: str | None = None) -> RunDir:
    """An existing run directory; RunNotFoundError says what stands against it, and what is near it."""
    try:
        return RunDir.open(word or path)
    except RunNotFoundError as error:
        siblings = [run.path.name for run in _runs_in(str(path.parent)) or []]
        if not path.exists() and (near := _nearest(path.name, siblings)):
            error.hint = f"did you mean {path.parent / near}?"
        raise
    except OSError as error:
        raise RunNotFoundError(f"{path}: {error.strerror}", "is it a run of somebody else?") from None


def _is_run(path: str | Path) -> bool:
    run = RunDir(path)
    return os.path.isfile(run.spec) and os.path.isfile(run.plan)


def _places() -> str:
    """The known places in words."""
    shown = [f"{place}/" for place in known_runs_dirs()]
    return ", ".join(shown or [f"{HERE}/"])
