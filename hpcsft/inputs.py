"""What the spec names, looked at before anything is queued: model folder, data files, prompts.

Only small reads, and nothing heavy is imported, so that a login node does it in a blink.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from hpcsft.benchmark.check import benchmark_problems
from hpcsft.data.files import find_files, read_about, saved_files
from hpcsft.data.first_rows import check_first_rows
from hpcsft.data.formats import RowError, check_keys
from hpcsft.errors import HpcsftError, InputError
from hpcsft.evaluate.judges import check_judge_files
from hpcsft.evaluate.judges.settings import how_to_give_the_key, key_problem
from hpcsft.evaluate.other_outputs import read_outputs
from hpcsft.evaluate.prompts import load_prompts
from hpcsft.hub.names import is_hub_name
from hpcsft.lora import check_lora
from hpcsft.model_folder.adapter import is_adapter
from hpcsft.model_folder.check import ModelFacts, check_model
from hpcsft.model_folder.vocabulary import has_chat_template
from hpcsft.model_shape import LLAMA_LAYOUT
from hpcsft.notify.lacks import what_notify_lacks
from hpcsft.plan import STAGES
from hpcsft.records import Record
from hpcsft.report.leaderboard import read_leaderboard
from hpcsft.rundir import runs_dir_warning
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.data import TEMPLATES
from hpcsft.spec.evaluate import JudgeSpec
from hpcsft.spec.model import ModelSpec
from hpcsft.train.trackers import how_to_install, missing_packages


class InputFacts(Record):
    """What submit has to know about the inputs."""

    model: ModelFacts
    data_files: list[str]
    data_bytes: int
    num_prompts: int
    warnings: list[str] = []
    """What will be missing later, and can still be given then."""


def check_inputs(spec: ExperimentSpec, stages: Collection[str] = STAGES) -> InputFacts:
    """Look at everything that `spec` names, and at what the judge needs if it is among `stages`.

    Raises InputError with all that is wrong, one line each.
    """
    problems: list[HpcsftError] = []

    def attempt(check: Any, *arguments: Any) -> Any:
        try:
            return check(*arguments)
        except InputError as error:
            problems.append(error)
            return None

    model = attempt(check_model, spec.model.path, "model.path")
    if model and "train" in stages:
        attempt(check_training, spec.model, model)
        if spec.model.lora:
            attempt(check_lora, spec.model.lora, model.model_type, model.shape)
    files: list[str] = []
    for pattern in spec.data.train:
        files += attempt(check_data, [pattern], spec.data.format, "data.train") or []
    for pattern in spec.data.validation if isinstance(spec.data.validation, list) else []:
        attempt(check_data, [pattern], spec.data.format, "data.validation")
    attempt(check_template, spec.data.template, spec.model.path)
    prompts = attempt(load_prompts, spec.evaluate.prompts) if spec.evaluate else []
    if "train" in stages:
        attempt(check_trackers, spec.train.trackers)
    for name, path in spec.evaluate.outputs.items() if spec.evaluate and prompts else ():
        attempt(read_outputs, name, path, prompts)
    if spec.evaluate:
        attempt(check_judge_files, spec.evaluate.judge)
        for path in spec.evaluate.leaderboards:
            attempt(read_leaderboard, path)
    if spec.evaluate and spec.evaluate.judge.kind == "local":
        attempt(check_model, spec.evaluate.judge.model, "evaluate.judge.model")
    if "benchmark" in stages:
        problems += benchmark_problems(spec)
    if problems:
        raise InputErrors(problems)
    return InputFacts(
        model=model,
        data_files=list(dict.fromkeys(files)),
        data_bytes=sum(data_size(file) for file in set(files)),
        num_prompts=len(prompts),
        warnings=[
            *filter(None, [runs_dir_warning(spec.runs_dir)]),
            *(what_the_judge_lacks(spec.evaluate.judge) if spec.evaluate and "judge" in stages else ()),
            *(what_notify_lacks(spec.notify) if spec.notify else ()),
        ],
    )


def check_training(spec: ModelSpec, model: ModelFacts) -> None:
    """InputError if the model cannot be trained, or not be written as `spec` asks."""
    if model.quantization:
        hint = "take the model in bfloat16, float16 or float32; LoRA does not change that"
        raise InputError(f"model.path: {spec.path}: quantized weights ({model.quantization}) cannot be trained", hint)
    if spec.lora and spec.lora.export == "adapter" and is_adapter(spec.path):
        what = f"{spec.path} is an adapter itself, and another would belong to no model that peft can load"
        raise InputError(f"model.lora.export: {what}", 'use "merged"')
    if spec.export == "llama" and model.model_type not in LLAMA_LAYOUT:
        types = ", ".join(LLAMA_LAYOUT)
        hint = f'use "native", which writes any model as what it is; models that can be written so: {types}'
        raise InputError(f"model.export: a model of type {model.model_type} cannot be written so", hint)


def check_template(template: str, model: str) -> None:
    """The Jinja file, or the chat template of the model's folder, if that is asked for: InputError if it is missing."""
    if template not in TEMPLATES:
        try:
            Path(template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise InputError(f"data.template: {template}: cannot be read: {reason}", "give a Jinja file") from None
    elif template == "tokenizer" and os.path.isdir(model) and not has_chat_template(Path(model)):
        hint = "use user_assistant, chatml or a Jinja file; base models often come without a chat template"
        raise InputError(f"data.template: {model}: the tokenizer has no chat template", hint)


def check_trackers(trackers: list[str]) -> None:
    """The packages of the trackers, or InputError: training would end where it begins."""
    if missing := missing_packages(trackers):
        raise InputError(f"train.trackers: not installed: {', '.join(missing)}", how_to_install(missing))


def what_the_judge_lacks(judge: JudgeSpec) -> Iterator[str]:
    """Warnings about the package and the key of a judge behind an API: without them the run would wait for a judge."""
    then = "; or the run will wait for a judge: python jobs/judge.py RUN_DIR finishes it later"
    if judge.kind == "local":
        return
    if importlib.util.find_spec(judge.kind) is None:
        yield f"evaluate.judge: the package {judge.kind} is not installed: pip install 'hpcsft[{judge.kind}]'{then}"
    if problem := key_problem(judge):
        yield f"evaluate.judge: {problem}: {how_to_give_the_key(judge)}{then}"


class InputErrors(InputError):
    """Several inputs are wrong; each keeps its own lines."""

    def __init__(self, problems: list[HpcsftError]):
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems

    def lines(self) -> list[str]:
        return [line for problem in self.problems for line in problem.lines()]


def check_data(patterns: list[str], format: str, where: str) -> list[str]:
    """What is behind `patterns`; InputError if something is missing, empty or its first row is no conversation.

    Of a data set of the hub only the name is looked at, of a folder saved by `datasets` only what its columns are.
    """
    files = find_files(patterns, where)
    for file in files:
        try:
            if os.path.isdir(file):
                _check_saved(file, format)
            elif not is_hub_name(file):
                check_first_rows(file, format)
        except InputError as error:
            raise InputError(f"{where}: {error.message}", error.hint) from None
    return files


def _check_saved(folder: str, format: str) -> None:
    saved_files(folder)
    about = read_about(folder, "dataset_info.json")
    columns = about.get("features") if isinstance(about, dict) else None
    if isinstance(columns, dict):  # datasets does without, and then so do we
        try:
            check_keys(columns, format)
        except RowError as error:
            raise InputError(f"{folder}: {error}", "see data.format in the README") from None


def data_size(file: str) -> int:
    """Bytes of a file or of a saved data set; 0 for one of the hub, which is not looked at."""
    if is_hub_name(file):
        return 0
    return sum(os.path.getsize(part) for part in (saved_files(file) if os.path.isdir(file) else [file]))
