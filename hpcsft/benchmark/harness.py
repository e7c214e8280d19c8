"""lm-evaluation-harness, given a model that is loaded already. Only this module imports it."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel

from hpcsft.benchmark.check import needs_packaged_tasks
from hpcsft.benchmark.results import Metric, Results, Settings
from hpcsft.errors import InputError
from hpcsft.spec.benchmark import BenchmarkSpec

os.environ["DISABLE_MULTIPROC"] = "1"  # a pool for standard errors would take every core of the node, and our signals
logging.getLogger("lm_eval.models.huggingface").setLevel(logging.ERROR)  # warns of every model that is an object


class CheckpointModel(HFLM):
    """A checkpoint as the harness sees it. `between_batches` is called before each batch and may raise."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, batch_size: int, between_batches: Callable[[], None]):
        super().__init__(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch_size)
        self.between_batches = between_batches

    def _model_call(self, *args: Any, **options: Any) -> torch.Tensor:
        self.between_batches()
        return super()._model_call(*args, **options)

    def _model_generate(self, *args: Any, **options: Any) -> torch.Tensor:
        self.between_batches()
        return super()._model_generate(*args, **options)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=True)  # bars fill log files

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        return super().generate_until(requests, disable_tqdm=True)


def settings_of(section: BenchmarkSpec, seed: int) -> Settings:
    """What decides the figures, besides the model."""
    return Settings(
        num_fewshot=section.num_fewshot,
        limit=section.limit,
        apply_chat_template=section.apply_chat_template,
        seed=seed,
        lm_eval_version=version("lm_eval"),
    )


def load_tasks(section: BenchmarkSpec, names: list[str]) -> dict[str, Any]:
    """The harness's tasks by the name in the spec, with their rows. InputError if one cannot be loaded or is unsafe."""
    with _folder(section.include_path):
        manager = TaskManager(include_path=section.include_path, include_defaults=needs_packaged_tasks(section))
        return {name: _load(manager, name) for name in names}


def _load(manager: TaskManager, name: str) -> Any:
    try:
        loaded = manager.load([name])
    except (FileNotFoundError, ConnectionError) as error:
        hint = 'give the task `dataset_path: json` with data_files, or fill the cache with "load_dataset" beforehand'
        raise InputError(f"benchmark.tasks: {name}: its rows are not on this machine: {_line(error)}", hint) from None
    except Exception as error:  # of task files, their functions and their templates, all of which may be the user's
        message = f"benchmark.tasks: {name} cannot be loaded: {type(error).__name__}: {_line(error)}"
        raise InputError(message, "look at its task file") from error
    for task in loaded["tasks"].values():
        if getattr(task, "UNSAFE_CODE", False):
            message = f"benchmark.tasks: {task.task_name} runs what the model writes, which hpcsft never does"
            raise InputError(message, "leave it out")
    return loaded


def measure(model: CheckpointModel, loaded: Any, section: BenchmarkSpec, settings: Settings) -> Results:
    """The figures of what `load_tasks` has loaded under one name; they do not depend on what was measured before."""
    random.seed(settings.seed)
    np.random.seed(settings.seed % 2**32)
    torch.manual_seed(settings.seed)
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (section.num_fewshot is not None and own != 0):  # as the harness does it itself
            task.set_config(key="num_fewshot", value=section.num_fewshot or 0)
        task.set_fewshot_seed(seed=settings.seed)
    with _folder(section.include_path):
        found = evaluate(
            lm=model,
            task_dict=loaded,
            limit=section.limit,
            log_samples=False,
            apply_chat_template=section.apply_chat_template,
            fewshot_as_multiturn=section.apply_chat_template,
            confirm_run_unsafe_code=False,
        )
    better = found["higher_is_better"]
    return Results(
        tasks={name: dict(_metrics(values)) for name, values in found["results"].items()},
        num_rows={name: rows["effective"] for name, rows in found["n-samples"].items()},
        num_fewshot={name: number for name, number in found["n-shot"].items() if name in found["n-samples"]},
        higher_is_better={
            name: {metric: value for metric, value in values.items() if isinstance(value, bool)}
            for name, values in better.items()
        },
        settings=settings,
    )


def _metrics(values: dict[str, Any]) -> Iterator[tuple[str, Metric]]:
    """Of {"acc,none": 0.5, "acc_stderr,none": 0.1, "alias": ...} what is a figure, with its standard error."""
    for key, value in values.items():
        metric, comma, kind = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            yield key, Metric(value=_number(value), stderr=_number(values.get(f"{metric}_stderr,{kind}")))


def _number(value: Any) -> float | None:
    with contextlib.suppress(TypeError, ValueError):  # "N/A"
        return float(value) if math.isfinite(float(value)) else None
    return None


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextlib.contextmanager
def _folder(path: str | None) -> Iterator[None]:
    """Let names of files in tasks be relative to `path`, wherever the job runs."""
    before = os.getcwd()
    try:
        os.chdir(path or before)
        yield
    finally:
        os.chdir(before)
