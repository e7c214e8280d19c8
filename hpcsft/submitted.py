"""Spec and plan as they were submitted, in a copy beside them: who edits spec.json or plan.json is told so.

Jobs would else go on with half of the old settings and half of the new ones.
"""

from __future__ import annotations

from typing import Any

from hpcsft.errors import StageError
from hpcsft.records import read_json, write_json
from hpcsft.rundir import RunDir

MOST_TOLD = 5


def write_settings(run: RunDir, spec: Any, plan: Any) -> None:
    """Write spec.json and plan.json, models or documents, and before them the copy that they are held against.

    spec.json comes last, because it makes a directory a run.
    """
    documents = {
        name: value if isinstance(value, dict) else value.model_dump(mode="json")
        for name, value in {"spec": spec, "plan": plan}.items()
    }
    write_json(run.submitted, documents)
    write_json(run.plan, documents["plan"])
    write_json(run.spec, documents["spec"])


def refuse_if_edited(run: RunDir) -> None:
    """StageError if spec.json or plan.json is not what was submitted; it names what differs, and how to go on."""
    try:
        submitted = read_json(run.submitted)
    except FileNotFoundError:  # of a version that kept no copy
        return
    found: list[str] = []
    for name, path in (("spec", run.spec), ("plan", run.plan)):
        try:
            found += differences(submitted[name], read_json(path), path.name)
        except ValueError:
            found.append(f"{path.name} is no JSON any more")
    if found:
        more = f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
        raise StageError(
            f"{run.path} was edited after its submission: {'; '.join(found[:MOST_TOLD])}{more}",
            f"put it back; then python launch/resume.py {run.path} --set FIELD=VALUE changes what a run may change, "
            "and a new submission the rest",
        )


def in_known_fields(kept: Any, loaded: Any, now: Any, path: str = "") -> tuple[Any, list[str]]:
    """`now` in the fields that a run's own code knows, and the fields that are set now and that it does not know. Pure.

    `kept` is the document in the run directory, perhaps of an older version; `loaded` is what this version reads in it,
    with fields that are new; `now` is `loaded` with changes. Code that knows no such field refuses the whole document.

    >>> in_known_fields({"env": {}}, {"env": {}, "venv": None}, {"env": {"A": "1"}, "venv": None})
    ({'env': {'A': '1'}}, [])
    >>> in_known_fields({"env": {}}, {"env": {}, "venv": None}, {"env": {}, "venv": "/v"})
    ({'env': {}}, ['venv'])
    """
    if now == loaded:
        return kept, []
    if not (isinstance(kept, dict) and isinstance(loaded, dict) and isinstance(now, dict)):
        return now, []
    known, unknown = {}, []
    for name, value in now.items():
        place = f"{path}.{name}" if path else name
        if name in loaded and name not in kept:
            unknown += [place] if value != loaded[name] else []
        elif name in loaded:
            known[name], more = in_known_fields(kept[name], loaded[name], value, place)
            unknown += more
        else:
            known[name] = value
    return known, unknown


def differences(submitted: Any, now: Any, where: str) -> list[str]:
    """Every value that is another now, with its place. Pure.

    >>> differences({"seed": 1, "model": {"path": "a"}}, {"seed": 2, "model": {"path": "a"}}, "spec.json")
    ['spec.json: seed is 2, submitted was 1']
    """
    before, after = dict(_leaves(submitted)), dict(_leaves(now))
    names = [name for name in {**before, **after} if before.get(name, _ABSENT) != after.get(name, _ABSENT)]
    return [
        f"{where}: {name} is {after.get(name, _ABSENT)!r}, submitted was {before.get(name, _ABSENT)!r}"
        for name in names
    ]


class _Absent:
    def __repr__(self) -> str:
        return "not there"


_ABSENT = _Absent()


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(item, f"{path}.{key}" if path else str(key))]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [leaf for number, item in enumerate(value) for leaf in _leaves(item, f"{path}[{number}]")]
    return [(path, value)]
