"""What differs between then and now, and whether results can be the same bits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hpcsft.provenance.inputs import HubData, InputFile
from hpcsft.records import Record

MOST_NAMED = 5
"""So many files are named, the rest counted."""

BYSTANDERS = ("submitit", "pydantic", "rich", "openai", "anthropic", "lm_eval")
"""Packages that the weights do not depend on."""


class Change(Record):
    """One thing that is not as it was."""

    what: str
    """code, package, python, input, slurm, or environment."""
    name: str
    """Which: a package, a path, a variable."""
    then: str | None
    now: str | None
    weights: bool
    """Can the weights be others for it?"""

    @property
    def line(self) -> str:
        """As commands print it."""
        values = "" if self.then is None and self.now is None else f": {self.then or 'none'} -> {self.now or 'none'}"
        return f"{self.what:<12} {self.name}{values}"


def package_changes(then: Mapping[str, str | None], now: Mapping[str, str | None]) -> Iterator[Change]:
    """Packages of another version than then, none that is new."""
    for name, version in then.items():
        if version != now.get(name):
            weights = name not in BYSTANDERS
            yield Change(what="package", name=name, then=version, now=now.get(name), weights=weights)


def python_changes(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    """Another version of Python."""
    if then.get("version") != now["version"]:
        yield Change(what="python", name="version", then=then.get("version"), now=now["version"], weights=True)


def commit_changes(then: str | None, now: str | None) -> Iterator[Change]:
    """Another commit. Whether it means another result say the files: see `code_changes`."""
    if then != now:
        short = [commit and commit[:10] for commit in (then, now)]
        yield Change(what="code", name="commit", then=short[0], now=short[1], weights=False)


def code_changes(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    """Files of the run's own code that are others, missing or new in the code that would run now."""
    kinds = {
        "changed": [path for path in then if path in now and now[path] != then[path]],
        "gone": [path for path in then if path not in now],
        "new": [path for path in now if path not in then],
    }
    for kind, paths in kinds.items():
        if paths:
            yield Change(what="code", name=f"{kind}: {some(paths)}", then=None, now=None, weights=True)


def some(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def input_changes(
    then: Iterable[InputFile], now: Mapping[str, InputFile | None], digests: Mapping[str, str | None] | None
) -> Iterator[Change]:
    """Inputs that are gone or others. With `digests`, by path, contents decide and nothing else; else size and time."""
    for file in then:
        found = now.get(file.path)
        name = f"{file.path} ({file.where})"
        weights = not file.where.startswith(("evaluate", "benchmark"))
        if found is None:
            yield Change(what="input", name=name, then="there", now="gone", weights=weights)
        elif digests is not None and file.sha256:
            digest = digests.get(file.path)
            if digest != file.sha256:
                shown = f"sha256 {digest[:12]}" if digest else "cannot be read"
                yield Change(what="input", name=name, then=f"sha256 {file.sha256[:12]}", now=shown, weights=weights)
        elif found.num_bytes != file.num_bytes:
            sizes = (f"{size:,} bytes" for size in (file.num_bytes, found.num_bytes))
            yield Change(what="input", name=name, then=next(sizes), now=next(sizes), weights=weights)
        elif found.mtime_ns != file.mtime_ns:
            yield Change(what="input", name=name, then="as it was", now="written since", weights=weights)


def new_inputs(then: Iterable[InputFile], now: Mapping[str, str]) -> Iterator[Change]:
    """Files that the spec stands for now, by path with its field, and did not then: globs and folders grow."""
    known = {file.path for file in then}
    for path, where in now.items():
        if path not in known:
            weights = not where.startswith(("evaluate", "benchmark"))
            yield Change(what="input", name=f"{path} ({where})", then="not there", now="there", weights=weights)


def hub_changes(then: Iterable[HubData]) -> Iterator[Change]:
    """Data sets of the hub whose commit is not known: they may be others by now."""
    for data in then:
        if data.revision is None:
            name = f"{data.name} ({data.where})"
            yield Change(what="input", name=name, then="no commit known", now="the newest", weights=True)


def slurm_changes(then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[Change]:
    """Another cluster, or another version of Slurm. None: no Slurm, or one that did not answer."""
    for field, name in (("name", "cluster"), ("slurm_version", "version")):
        values = [cluster.get(field) if cluster else None for cluster in (then, now)]
        if values[0] != values[1]:
            yield Change(what="slurm", name=name, then=values[0], now=values[1], weights=False)


def expectation(changes: Sequence[Change], ranks: int, attempts: Sequence[Mapping[str, Any]]) -> str:
    """Whether the same bits can be expected, in one sentence. `attempts` are the records of training's attempts."""
    if reasons := [change for change in changes if change.weights]:
        kinds = ", ".join(dict.fromkeys(change.what for change in reasons))
        return f"the weights may come out differently: changed since: {kinds}"
    sizes = sorted({attempt["world_size"] for attempt in attempts})
    if len(sizes) > 1:
        numbers = " and ".join(map(str, sizes))
        return f"not bit for bit: this run went on with another number of ranks on its way ({numbers})"
    machines = [attempt["machine"] for attempt in attempts]
    gpus = list(dict.fromkeys(gpu for machine in machines for gpu in machine["gpus"] if gpu))
    cpus = list(dict.fromkeys(machine["cpu"] for machine in machines))
    noun = "rank" if ranks == 1 else "ranks"
    if gpus:
        return (
            f"the same steps on {ranks} {noun}; bit for bit where the kernels of the GPUs "
            f"({', '.join(gpus)}) are deterministic"
        )
    where = f" of the same kind ({', '.join(cpus)})" if cpus else " of the same kind"
    return f"weights and losses come out bit for bit the same on {ranks} {noun} on machines{where}"
