"""The stage `benchmark`: this task's checkpoint at every benchmark of the spec, one finished file after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcsft.benchmark.check import benchmark_problems, packaged_tasks, task_files
from hpcsft.benchmark.results import Results, join, read_results, results_file, task_file
from hpcsft.benchmark.task_digest import task_digest
from hpcsft.data.chat_template import chat_template
from hpcsft.data.trained_template import trained_template
from hpcsft.errors import InputError
from hpcsft.evaluate.outputs import checkpoint_path
from hpcsft.models.load import load_model, pick_device
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.records import write_json
from hpcsft.stage import StageContext, require


def benchmark(context: StageContext) -> None:
    """The body of the stage."""
    run, spec, section = context.run, context.spec, context.spec.benchmark
    if problems := benchmark_problems(spec):
        raise problems[0]  # submit has told all of them
    from hpcsft.benchmark.harness import CheckpointModel, load_tasks, measure, settings_of

    checkpoint = spec.benchmarked_checkpoints()[context.index]
    path = checkpoint_path(run, spec, checkpoint)
    require(path, "train")
    task_file(run, checkpoint, "").parent.mkdir(parents=True, exist_ok=True)
    settings = settings_of(section, spec.seed)
    files = task_files(section, packaged_tasks())
    sources = {name: {name: task_digest(name, files, section.include_path)} for name in section.tasks}
    kept = {name: _read(task_file(run, checkpoint, name)) for name in section.tasks}
    done = {
        name: results
        for name, results in kept.items()
        if results and (results.settings, results.sources) == (settings, sources[name])
    }
    missing = [name for name in section.tasks if name not in done]
    context.progress(len(done), len(section.tasks), "tasks")
    if missing:
        loaded = load_tasks(section, missing)
        model = load_model(str(path), spec.model.dtype, spec.model.attention).to(pick_device())
        tokenizer = _tokenizer(context, str(path))
        examined = CheckpointModel(model, tokenizer, section.batch_size, context.stop_if_asked)
        for name in missing:
            context.say(f"{checkpoint}: {name}")
            figures = measure(examined, loaded.pop(name), section, settings)
            done[name] = figures.model_copy(update={"sources": sources[name]})
            write_json(task_file(run, checkpoint, name), done[name])
            context.progress(len(done), len(section.tasks), "tasks")
    write_json(results_file(run, checkpoint), join([done[name] for name in section.tasks]))


def _read(path: Path) -> Results | None:
    try:
        return read_results(path)
    except ValueError:
        return None  # damaged: it is measured again


def _tokenizer(context: StageContext, path: str) -> Any:
    """The checkpoint's tokenizer, with the chat template of training if asked for: a base model may have none."""
    run, spec = context.run, context.spec
    tokenizer = load_tokenizer(path)
    if spec.benchmark.apply_chat_template:
        template = trained_template(run, spec, tokenizer)
        tokenizer.chat_template = chat_template(spec.data.template, template.source, tokenizer)
        if tokenizer.chat_template is None:
            message = (
                f"benchmark.apply_chat_template: no Jinja text gives the tokens of data.template {spec.data.template}"
            )
            raise InputError(message, "leave it out: the figures are then those of plain text")
    return tokenizer
