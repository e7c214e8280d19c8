"""What a container has to see of the shared filesystem: everything that the spec names, and the run directory."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping

from hpcsft.errors import InputError
from hpcsft.hub.caches import datasets_cache, hub_cache
from hpcsft.hub.names import is_hub_name
from hpcsft.model_folder.adapter import base_of, is_adapter
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.data import TEMPLATES


def container_mounts(spec: ExperimentSpec, stage: str, environ: Mapping[str, str]) -> list[str]:
    """SOURCE:TARGET[:ro] of each mount of a stage's container, with the user's own last; empty without a container.

    Inputs are read-only; runs_dir and the caches of Hugging Face can be written. Looks for symbolic links, whose
    targets have to be visible too. Raises InputError for a path that no mount can name.
    """
    container = spec.cluster.container
    if container is None:
        return []
    variables = {**environ, **spec.cluster.env}
    caches = [path for path in map(str, (hub_cache(variables), datasets_cache(variables))) if os.path.isdir(path)]
    owned = [("runs_dir", spec.runs_dir), *(("HF_HOME", path) for path in caches)]
    writable = [_checked(target, where) for where, path in owned for target in (path, os.path.realpath(path))]
    named = [(where, path) for where, path in inputs_of(spec, stage) if not is_hub_name(path)]
    inputs = [_checked(target, where) for where, path in named for target in _seen(path)]
    inputs = [path for path in merged(inputs) if not _within(path, writable)]
    made = [*(f"{path}:{path}:ro" for path in inputs), *(f"{path}:{path}" for path in merged(writable))]
    return [*made, *(mount if ":" in mount else f"{mount}:{mount}" for mount in container.mounts)]


def inputs_of(spec: ExperimentSpec, stage: str) -> Iterator[tuple[str, str]]:
    """The field and the absolute path of everything that a stage may read. Of a glob, the folder where it begins."""
    yield from (("model.path", path) for path in _with_bases(spec.model.path))
    for pattern in spec.data.train:
        yield "data.train", _fixed_folder(pattern)
    for pattern in spec.data.validation if isinstance(spec.data.validation, list) else []:
        yield "data.validation", _fixed_folder(pattern)
    if spec.data.template not in TEMPLATES:
        yield "data.template", spec.data.template
    if evaluate := spec.evaluate:
        yield "evaluate.prompts", evaluate.prompts
        yield from (("evaluate.outputs", path) for path in evaluate.outputs.values())
        yield from (("evaluate.leaderboards", path) for path in evaluate.leaderboards)
        if evaluate.judge.kind == "local":
            yield from (("evaluate.judge.model", path) for path in _with_bases(evaluate.judge.model))
        for field in ("template", "evaluator", *(["api_key_file"] if stage == "judge" else [])):
            if path := getattr(evaluate.judge, field):
                yield f"evaluate.judge.{field}", path
    if spec.benchmark and spec.benchmark.include_path:
        yield "benchmark.include_path", spec.benchmark.include_path


def _with_bases(model: str) -> Iterator[str]:
    """The folder of a model; of an adapter also that of the model it belongs to."""
    yield model
    while is_adapter(model):
        model = base_of(model)
        yield model


def merged(paths: Iterable[str]) -> list[str]:
    """The same without doubles, and without what lies within another one."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not _within(path, kept):
            kept.append(path)
    return kept


def _within(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _fixed_folder(pattern: str) -> str:
    """`pattern` itself if it is no glob."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return pattern if fixed == pattern else os.path.dirname(fixed)


def _seen(path: str) -> Iterator[str]:
    """The path, and where it and the entries of its folder lead to."""
    yield path
    yield os.path.realpath(path)
    with contextlib.suppress(OSError), os.scandir(path) as entries:  # it may be no folder, or not ours to read
        yield from (os.path.dirname(os.path.realpath(entry.path)) for entry in entries if entry.is_symlink())


def _checked(path: str, where: str) -> str:
    if re.search(r"[,:\n]", path):
        message = f"{where}: a container's mount cannot name {path}: there is a comma, a colon or a newline in it"
        raise InputError(message, "rename it, or run without cluster.container")
    if path == "/":
        raise InputError(f"{where}: all of / would have to be mounted into the container", "put it into a folder")
    return path
