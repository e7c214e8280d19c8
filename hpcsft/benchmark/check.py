"""Can the tasks of the section `benchmark` be run? Looked at before anything is queued, without loading the harness."""

from __future__ import annotations

import glob
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hpcsft.benchmark.task_files import FILE_FORMATS, TaskFiles, TaskSettings, data_patterns
from hpcsft.errors import InputError
from hpcsft.hub.caches import datasets_cache
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.benchmark import BenchmarkSpec

OWN_FILES = "give the task `dataset_path: json` and `dataset_kwargs: {data_files: {test: rows.jsonl}}`"


def benchmark_problems(spec: ExperimentSpec) -> list[InputError]:
    """All that is known to be wrong: package, task names, code that asks for trust, rows that are not on this disk."""
    section = spec.benchmark
    if section is None:
        return []
    package = packaged_tasks()
    if package is None:
        message = "benchmark: lm-evaluation-harness is not installed"
        return [InputError(message, "pip install 'hpcsft[lm-eval]', or leave the section benchmark out")]
    own = Path(section.include_path) if section.include_path else None
    if own and not any(own.rglob("*.yaml")):
        what = "no task files (*.yaml) in it" if own.is_dir() else "no such folder"
        return [InputError(f"benchmark.include_path: {own}: {what}", "give the folder in which your task files are")]
    files = task_files(section, package)
    problems: list[InputError] = []
    found: list[TaskSettings] = []
    for name in section.tasks:
        try:
            found += files.tasks(name)
        except KeyError as missing:
            problems.append(_unknown(name, missing.args[0], section, files))
        except InputError as error:
            problems.append(error)
    problems += [problem for task in found for problem in _asks_for_trust(task)]
    problems += _missing_files(found, section.include_path)
    problems += _missing_data_sets(found, section.include_path, spec)
    return problems


def task_files(section: BenchmarkSpec, package: Path) -> TaskFiles:
    """Those of the user and those of the package, in the order in which they win."""
    return TaskFiles([*([Path(section.include_path)] if section.include_path else []), package])


def packaged_tasks() -> Path | None:
    """The folder of the tasks that come with lm-evaluation-harness, which is not loaded; None without the package."""
    package = importlib.util.find_spec("lm_eval")
    return Path(package.origin).parent / "tasks" if package and package.origin else None


def needs_packaged_tasks(section: BenchmarkSpec) -> bool:
    """Is a task not in `include_path`? To look through those that come with the harness takes seconds."""
    if section.include_path is None:
        return True
    files = TaskFiles([Path(section.include_path)])
    try:
        return not all(files.tasks(name) for name in section.tasks)
    except KeyError:
        return True


def _unknown(name: str, missing: str, section: BenchmarkSpec, files: TaskFiles) -> InputError:
    near = files.nearest(missing)
    hint = f"did you mean {' or '.join(near)}?" if near else "give the folder of your task files as include_path"
    where = f"in {section.include_path} or " if section.include_path else ""
    member = f", which '{name}' names" if missing != name else ""
    return InputError(f"benchmark.tasks: no task '{missing}'{member} {where}among those of lm-evaluation-harness", hint)


def _asks_for_trust(task: TaskSettings) -> Iterator[InputError]:
    """Models and data sets never bring code of their own, and answers are never run as programs."""
    if task.values.get("unsafe_code"):
        message = f"benchmark.tasks: {task.name} runs what the model writes (unsafe_code), which hpcsft never does"
        yield InputError(message, "leave it out")
    options = task.values.get("dataset_kwargs")
    if isinstance(options, dict) and options.get("trust_remote_code"):
        message = f"benchmark.tasks: {task.name} asks for trust_remote_code, which hpcsft gives to nothing"
        yield InputError(
            message, f"take it out of its file; if the rows need code, write them to a file and {OWN_FILES}"
        )


def _missing_files(tasks: list[TaskSettings], include_path: str | None) -> Iterator[InputError]:
    for task in tasks:
        for path in data_patterns(task, include_path):
            if not glob.glob(path):
                message = f"benchmark.tasks: {task.name}: no file {path}"
                yield InputError(message, "data_files are full paths, or relative to benchmark.include_path")


def _missing_data_sets(tasks: list[TaskSettings], include_path: str | None, spec: ExperimentSpec) -> list[InputError]:
    """Data sets of the hub that no cache holds. Nothing is said where it cannot be known, or nodes may download."""
    environment = {**os.environ, **spec.cluster.env}
    elsewhere = any(word in line for line in spec.cluster.setup for word in ("HF_", "XDG_CACHE_HOME"))
    if elsewhere or environment.get("HF_HUB_OFFLINE", "").upper() in ("0", "FALSE", "NO", "OFF"):
        return []
    cache = datasets_cache(environment)
    missing: dict[str, dict[str | None, str]] = {}
    for task in tasks:
        path, config = task.values.get("dataset_path"), task.values.get("dataset_name")
        given = "custom_dataset" in task.values or "class" in task.values or not isinstance(path, str)
        if given or path in FILE_FORMATS or os.path.isdir(os.path.join(include_path or "", path)):
            continue
        if not _is_cached(cache, path, config):
            missing.setdefault(path, {})[config] = task.name
    return [_not_cached(cache, path, configs) for path, configs in missing.items()]


def _is_cached(cache: Path, path: str, config: str | None) -> bool:
    """`datasets` writes owner/SomeName as owner___some_name, with a folder for every configuration."""
    folders = [folder for folder in cache.glob("*") if _plain(folder.name) == _plain(path)]
    return any(config is None or entry.name.startswith(str(config)) for folder in folders for entry in folder.iterdir())


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.-]", "", name.lower())


def _not_cached(cache: Path, path: str, configs: dict[str | None, str]) -> InputError:
    task, *others = configs.values()
    more = f" and {len(others)} more" if others else ""
    if configs.keys() == {None}:
        load = f"load_dataset({path!r})"
    else:
        load = f"[load_dataset({path!r}, name) for name in {list(configs)!r}]"
    command = f'where there is internet: python -c "from datasets import load_dataset; {load}"'
    message = (
        f"benchmark.tasks: {task}{more}: the data set {path} is not in {cache}, and compute nodes have no internet"
    )
    return InputError(message, f"{command}; or {OWN_FILES}")
