"""From a run back to a spec, with what is not as it was when the run was submitted."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpcsft.digest import sha256_of
from hpcsft.errors import HpcsftError, InputError
from hpcsft.hub.fetched import local_spec, read_fetched
from hpcsft.inputs import what_the_judge_lacks
from hpcsft.log_tail import safe_text
from hpcsft.notify.lacks import what_notify_lacks
from hpcsft.owner import this_cluster_or_none
from hpcsft.plan import Plan
from hpcsft.provenance.changes import (
    Change,
    code_changes,
    commit_changes,
    expectation,
    hub_changes,
    input_changes,
    new_inputs,
    package_changes,
    python_changes,
    slurm_changes,
)
from hpcsft.provenance.code import code_digest, code_files, git_state
from hpcsft.provenance.hashing import MOST_THREADS
from hpcsft.provenance.inputs import InputFile, input_paths, read_inputs, state_now
from hpcsft.provenance.software import installed, packages, python
from hpcsft.records import Record, read_json, write_text
from hpcsft.rundir import RunDir
from hpcsft.shell import command
from hpcsft.spec import ExperimentSpec, parse_spec
from hpcsft.submitted import refuse_if_edited

SCHEMA_VERSION = 1


class Reproduction(Record):
    """What `reproduce` tells; its dump is the document of `--json`."""

    schema_version: int = SCHEMA_VERSION
    run_dir: str
    spec: str
    """The file that was written."""
    submitted: dict[str, Any]
    """When, by whom, where and by which command; commit and digest of the code."""
    changes: list[Change]
    expectation: str
    notes: list[str]
    """What cannot be told, and what is missing here."""
    commands: dict[str, str]
    """now: with the code that is here; own_code: with that of the run, if it can submit itself."""

    @property
    def unchanged(self) -> bool:
        """Is all as it was that a result can depend on?"""
        return not [change for change in self.changes if change.weights or change.what == "input"]


def reproduce(run: RunDir, root: Path, output: Path | None, verify: bool) -> Reproduction:
    """Write the spec of `run` to `output` (NAME-HASH.json here), and tell what has changed against the code in `root`.

    With `verify` all inputs are read again, and their contents decide. Raises HpcsftError if the run was never
    submitted, if its spec was edited since, or if `output` exists and is another spec.
    """
    if not run.provenance.is_file():
        raise HpcsftError(f"{run.provenance} is missing", "submit writes it; was it removed?")
    refuse_if_edited(run)
    then = read_json(run.provenance)
    text = run.spec.read_text(encoding="utf-8")
    target = output or Path(f"{run.path.name}.json")
    _write_spec(target, text)
    changes, notes = [], []
    own = code_files(run.code)
    if then.get("code_digest") not in (None, code_digest(own)):
        notes.append(f"{run.code} was edited after the submission; what is told of code is about what it is now")
    here = {path: digest for path, digest in code_files(root).items() if path.split("/")[0] in _folders(own)}
    changes += [*commit_changes(then.get("commit"), git_state(root)["commit"]), *code_changes(own, here)]
    changes += python_changes(then.get("python", {}), python())
    changes += package_changes(then.get("packages", {}), packages(installed()))
    changes += slurm_changes(then.get("cluster"), _cluster_now())
    try:
        spec = parse_spec(json.loads(text), source=str(run.spec))
    except HpcsftError as error:
        notes.append(f"the code that is here does not take this spec: {'; '.join(error.lines())}")
        spec = None
    changes += _input_changes(run, spec, verify, notes)
    if spec is not None:
        notes += _missing_here(spec)
    plan = Plan.model_validate(read_json(run.plan))
    records = [read_json(file) for file in sorted(run.attempt_record("train", "x", 0).parent.glob("[!.]*.json"))]
    if not records:
        notes.append("no attempt at training has left a record of its machine")
    return Reproduction(
        run_dir=str(run.path),
        spec=str(target),
        submitted={key: then.get(key) for key in ("time", "user", "host", "command", "commit", "code_digest")},
        changes=changes,
        expectation=expectation(changes, plan.stage("train").world_size, records),
        notes=notes,
        commands=_commands(run, root, target, json.loads(text), then),
    )


def _write_spec(target: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if target.read_text(encoding="utf-8") != text:
            raise HpcsftError(f"{target} exists and is another file", "--output FILE names a new one")
        return
    try:
        write_text(target, text)
    except OSError as error:
        raise HpcsftError(f"{target}: cannot be written: {error.strerror}", "--output FILE names another") from None


def _folders(files: Sequence[str] | dict[str, str]) -> set[str]:
    return {path.split("/")[0] for path in files}


def _cluster_now() -> dict[str, Any] | None:
    here = this_cluster_or_none() if shutil.which("scontrol") else None
    return {"name": here.name, "slurm_version": here.version} if here else None


def _input_changes(run: RunDir, spec: ExperimentSpec | None, verify: bool, notes: list[str]) -> list[Change]:
    known = read_inputs(run)
    if not known.files and not known.hub:
        notes.append("preprocessing has not written down its inputs: nothing can be told about them")
        return []
    if not run.inputs.is_file():
        notes.append("preprocessing has not written down all of its inputs")
    now = {file.path: state_now(file.path) for file in known.files}
    found = [*input_changes(known.files, now, _digests(known.files, now) if verify else None), *hub_changes(known.hub)]
    if spec is not None and run.inputs.is_file():
        with contextlib.suppress(InputError):  # a model of the hub that was never fetched
            found += new_inputs(known.files, input_paths(local_spec(spec, read_fetched(run))))
    return found


def _digests(files: Sequence[InputFile], now: dict[str, InputFile | None]) -> dict[str, str | None]:
    def digest(path: str) -> str | None:
        try:
            return sha256_of(path)
        except OSError:
            return None

    paths = [file.path for file in files if now[file.path]]
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        return dict(zip(paths, pool.map(digest, paths), strict=True))


def _missing_here(spec: ExperimentSpec) -> list[str]:
    judge = what_the_judge_lacks(spec.evaluate.judge) if spec.evaluate else ()
    return [*judge, *(what_notify_lacks(spec.notify) if spec.notify else ())]


def _commands(run: RunDir, root: Path, target: Path, spec: dict[str, Any], then: dict[str, Any]) -> dict[str, str]:
    """The same spec in the same runs_dir is the same run, so another one is named."""
    beside = ["--set", f"runs_dir={spec['runs_dir']}-again"]
    found = {"now": command(["python", root / "launch" / "submit.py", target, *beside])}
    own = run.code / "launch" / "submit.py"
    if own.is_file():
        found["own_code"] = command([then.get("python", {}).get("executable", "python"), own, target, *beside])
    return found


def reproduction_text(found: Reproduction) -> str:
    """The same for people, without what would change a terminal: the run may be anybody's."""
    told = found.submitted
    commit = f", commit {told['commit'][:10]}" if told.get("commit") else ""
    lines = [
        f"spec       {found.spec}",
        f"of         {found.run_dir}",
        f"submitted  {told['time']} by {told.get('user') or 'unknown'} on {told['host']}{commit}",
        f"           {command(told['command'] or [])}",
    ]
    lines += ["", "changed since" if found.changes else "nothing has changed since: code, versions, inputs"]
    lines += [f"  {change.line}" for change in found.changes]
    lines += ["", f"expect     {found.expectation}"]
    lines += [f"note       {note}" for note in found.notes]
    lines += ["", f"run it     {found.commands['now']}"]
    if own := found.commands.get("own_code"):
        lines.append(f"           with the run's own code: {own}")
    return safe_text("\n".join(lines))
