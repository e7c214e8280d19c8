"""What was fetched for a run: which state of each repository, and where it is. Jobs read this, and no network."""

from __future__ import annotations

import os
from typing import Any

from hpcsft.errors import InputError
from hpcsft.hub.names import DataName, is_hub_name
from hpcsft.records import Record, read_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec


class FetchedModel(Record):
    """A model of the hub in a folder of this machine."""

    revision: str
    """The commit, of 40 hexadecimal digits."""
    folder: str
    files: dict[str, int]
    """Bytes of each file by its name."""

    def is_whole(self) -> bool:
        """Are all files there, as long as they were?"""
        try:
            return all(os.path.getsize(os.path.join(self.folder, name)) == size for name, size in self.files.items())
        except OSError:
            return False


class FetchedData(Record):
    """A data set of the hub, in the cache of `datasets`."""

    revision: str
    """The commit, of 40 hexadecimal digits."""
    config: str
    """The configuration, which is the repository's default one if the name tells none."""
    cache: str
    """The cache, as in HF_DATASETS_CACHE."""
    folder: str
    """Where in it the data set is."""
    size_bytes: int

    def is_whole(self) -> bool:
        """Is it there? `datasets` gives the folder its name when all is in it."""
        return os.path.isfile(os.path.join(self.folder, "dataset_info.json"))


class Fetched(Record):
    """All that the names in a spec stand for."""

    models: dict[str, FetchedModel] = {}
    data: dict[str, FetchedData] = {}


def model_names(spec: ExperimentSpec) -> dict[str, str]:
    """Models of the hub that `spec` names, each with the field that does."""
    names = {}
    if is_hub_name(spec.model.path):
        names[spec.model.path] = "model.path"
    if spec.evaluate and spec.evaluate.judge.kind == "local" and is_hub_name(spec.evaluate.judge.model):
        names.setdefault(spec.evaluate.judge.model, "evaluate.judge.model")
    return names


def data_names(spec: ExperimentSpec) -> dict[str, str]:
    """Data sets of the hub that `spec` names, each with the field that does."""
    validation = spec.data.validation if isinstance(spec.data.validation, list) else []
    names = {name: "data.validation" for name in validation if is_hub_name(name)}
    return names | {name: "data.train" for name in spec.data.train if is_hub_name(name)}


def read_fetched(run: RunDir) -> Fetched:
    """What was fetched for `run`; nothing if its spec names nothing of the hub."""
    try:
        return Fetched.model_validate(read_json(run.fetched))
    except FileNotFoundError:
        return Fetched()


def local_spec(spec: ExperimentSpec, fetched: Fetched) -> ExperimentSpec:
    """`spec` with folders in the place of models' names, and data sets at the commit that was fetched.

    It is for reading the inputs: the spec as it was given names the run. InputError if a model is not here.
    """
    models, data = model_names(spec), data_names(spec)
    if not models and not data:
        return spec
    for name, where in models.items():
        model = fetched.models.get(name)
        if model is None or not os.path.isdir(model.folder):
            place = f"; it was, into {model.folder}, which is not here" if model else ""
            hint = (
                "python launch/resume.py RUN_DIR on the login node fetches it; HF_HOME must be on a shared filesystem"
            )
            raise InputError(f"{where}: {name} is not fetched for this run{place}", hint)
    values: dict[str, Any] = spec.model_dump(mode="json")
    values["model"]["path"] = _folder(spec.model.path, fetched)
    if spec.evaluate and spec.evaluate.judge.kind == "local":
        values["evaluate"]["judge"]["model"] = _folder(spec.evaluate.judge.model, fetched)
    values["data"]["train"] = [_pinned(name, fetched) for name in spec.data.train]
    if isinstance(spec.data.validation, list):
        values["data"]["validation"] = [_pinned(name, fetched) for name in spec.data.validation]
    return ExperimentSpec.model_validate(values)


def _folder(path: str, fetched: Fetched) -> str:
    return fetched.models[path].folder if is_hub_name(path) else path


def _pinned(path: str, fetched: Fetched) -> str:
    found = fetched.data.get(path)
    return DataName.parse(path).pinned(found.revision, found.config) if found else path
