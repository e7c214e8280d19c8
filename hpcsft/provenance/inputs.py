"""provenance/inputs.json: every file that a run reads from outside its directory, with size, time and sha256."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpcsft.data.files import find_files, saved_files
from hpcsft.errors import InputError
from hpcsft.hub.names import is_hub_name
from hpcsft.model_folder.adapter import base_of, is_adapter
from hpcsft.model_folder.weights import find_weights, read_weights
from hpcsft.records import Record, read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.data import TEMPLATES

WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot")
"""Of a model folder only those of these are inputs that are loaded; everything else in it may be looked at."""


class InputFile(Record):
    """One file, as it was when it was read."""

    where: str
    """The field of the spec that leads to it."""
    path: str
    num_bytes: int
    mtime_ns: int
    """When it was changed last, in nanoseconds since the epoch."""
    sha256: str | None = None
    """None where it could not be read."""

    def same_state(self, other: InputFile) -> bool:
        """Are size and time as in `other`?"""
        return (self.num_bytes, self.mtime_ns) == (other.num_bytes, other.mtime_ns)


class HubData(Record):
    """A data set of the hub: its files are in a cache that belongs to `datasets`."""

    where: str
    name: str
    revision: str | None
    """The commit that was fetched."""
    fingerprint: str
    """As `datasets` computes it from what is in the cache."""


class Inputs(Record):
    """The document."""

    files: list[InputFile] = []
    hub: list[HubData] = []


def input_paths(spec: ExperimentSpec) -> dict[str, str]:
    """Path -> field of the spec, for every file that exists; what is missing is for those to report who need it."""
    found: dict[str, str] = {}
    for where, path in _paths(spec):
        if os.path.isfile(path):
            found.setdefault(path, where)
    return found


def hub_names(spec: ExperimentSpec) -> list[tuple[str, str]]:
    """Fields and names of the data sets that come from the hub."""
    return [(where, name) for where, names in _data(spec) for name in names if is_hub_name(name)]


def _data(spec: ExperimentSpec) -> list[tuple[str, list[str]]]:
    validation = spec.data.validation if isinstance(spec.data.validation, list) else []
    return [("data.train", spec.data.train), ("data.validation", validation)]


def _paths(spec: ExperimentSpec) -> Iterator[tuple[str, str]]:
    for where, patterns in _data(spec):
        for pattern in patterns:
            with contextlib.suppress(InputError):
                for file in find_files([pattern], where):
                    yield from ((where, part) for part in (saved_files(file) if os.path.isdir(file) else [file]))
    if spec.data.template not in TEMPLATES:
        yield "data.template", spec.data.template
    yield from (("model.path", path) for path in model_files(spec.model.path))
    if evaluate := spec.evaluate:
        yield "evaluate.prompts", evaluate.prompts
        yield from ((f"evaluate.outputs.{name}", path) for name, path in evaluate.outputs.items())
        yield from (("evaluate.leaderboards", path) for path in evaluate.leaderboards)
        judge = evaluate.judge
        if judge.template:
            yield "evaluate.judge.template", judge.template
        if judge.evaluator:
            yield from (("evaluate.judge.evaluator", path) for path in _all_files(judge.evaluator))
        if judge.kind == "local":
            yield from (("evaluate.judge.model", path) for path in model_files(judge.model))
    if spec.benchmark and spec.benchmark.include_path:
        yield from (("benchmark.include_path", path) for path in _all_files(spec.benchmark.include_path))


def _all_files(folder: str) -> list[str]:
    return sorted(glob.glob(os.path.join(glob.escape(folder), "**"), recursive=True))


def model_files(folder: str) -> list[str]:
    """The weights that are loaded, and all beside them that is no weights; of an adapter its base model's, too."""
    if not os.path.isdir(folder):
        return []
    files = [entry.path for entry in os.scandir(folder) if entry.name[0] != "." and entry.is_file()]
    chosen = {file for file in files if not file.endswith(WEIGHT_ENDINGS)}
    with contextlib.suppress(InputError, OSError):
        if is_adapter(folder):
            chosen.update(file for file in files if os.path.basename(file).startswith("adapter_model."))
            return [*sorted(chosen), *model_files(base_of(folder))]
        chosen.update(map(str, read_weights(find_weights(Path(folder))).files))
    return sorted(chosen)


def state_now(path: str, where: str = "") -> InputFile | None:
    """Size and time of a file, without its digest; None if it is not there, or cannot be looked at."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return InputFile(where=where, path=path, num_bytes=facts.st_size, mtime_ns=facts.st_mtime_ns)


def read_inputs(run: RunDir) -> Inputs:
    """What is known of the inputs of `run`: the document, or as much of it as the tasks have made so far."""
    return _joined([run.inputs, *sorted(run.provenance_folder.glob("inputs-*.json"))])


def write_whole(run: RunDir, spec: ExperimentSpec) -> None:
    """Write the document if all that it needs is known, and then remove the parts: the last task does it."""
    known = read_inputs(run)
    files = {file.path: file for file in known.files}
    wanted = input_paths(spec)
    if wanted.keys() <= files.keys() and {name for _, name in hub_names(spec)} <= {data.name for data in known.hub}:
        write_json(run.inputs, Inputs(files=[files[path] for path in wanted], hub=known.hub))
        for part in run.provenance_folder.glob("inputs-*.json"):
            part.unlink(missing_ok=True)


def _joined(parts: Iterable[Path]) -> Inputs:
    """Later parts are newer."""
    files: dict[str, InputFile] = {}
    hub: dict[str, HubData] = {}
    for part in parts:
        with contextlib.suppress(OSError, ValueError):
            inputs = Inputs.model_validate(read_json(part))
            files.update({file.path: file for file in inputs.files})
            hub.update({data.name: data for data in inputs.hub})
    return Inputs(files=list(files.values()), hub=list(hub.values()))
