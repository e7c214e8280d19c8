"""The stage `generate`: answers of every checkpoint to this task's share of the prompts, in batches."""

from __future__ import annotations

from pathlib import Path

import torch

from hpcsft.data.trained_template import trained_template
from hpcsft.evaluate.generation.answerer import Answerer
from hpcsft.evaluate.generation.conditions import Conditions, conditions_file, versions
from hpcsft.evaluate.generation.placement import place
from hpcsft.evaluate.outputs import append_answers, checkpoint_path, journal, read_answers
from hpcsft.evaluate.prompts import Prompt, load_prompts
from hpcsft.models.load import load_model
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.records import write_json
from hpcsft.stage import StageContext, require


def generate(context: StageContext) -> None:
    """The body of the stage."""
    run, spec = context.run, context.spec
    prompts = load_prompts(spec.evaluate.prompts)
    rows = range(context.index, len(prompts), context.stage.tasks)
    checkpoints = spec.evaluated_checkpoints()
    total = len(rows) * len(checkpoints)
    done = 0
    for checkpoint in checkpoints:
        path = checkpoint_path(run, spec, checkpoint)
        require(path, "train")
        (run.evaluate / checkpoint).mkdir(parents=True, exist_ok=True)
        answered = {row: answer.instruction for row, answer in read_answers(run, checkpoint).items()}
        missing = {row: prompts[row] for row in rows if answered.get(row) != prompts[row].instruction}
        done += len(rows) - len(missing)
        context.progress(done, total, "answers")
        if missing:
            _answer(context, checkpoint, path, missing, done, total)
            done += len(missing)
            context.say(f"{checkpoint}: {len(missing)} answers")


def _answer(
    context: StageContext, checkpoint: str, path: Path, missing: dict[int, Prompt], done: int, total: int
) -> None:
    """Let the model in `path` answer what is missing; `done` of `total` answers were there before."""
    run, spec = context.run, context.spec
    model = place(load_model(str(path), spec.model.dtype, spec.model.attention).eval(), context.say)
    tokenizer = load_tokenizer(str(path))
    template = trained_template(run, spec, tokenizer)
    answerer = Answerer(model, tokenizer, template, spec.evaluate.generation, context.say)
    found = answerer.answers(missing, f"{spec.seed}/{checkpoint}")
    write_json(conditions_file(run, checkpoint), conditions(answerer, template.name, spec.seed))
    try:
        for answers in found:
            if answers:
                append_answers(journal(run, checkpoint, context.index), answers)
                done += len(answers)
                context.progress(done, total, "answers")
            context.stop_if_asked()
    finally:
        found.close()
        del answerer, model  # or two models are on the GPU while the next one loads
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def conditions(answerer: Answerer, template: str, seed: int) -> Conditions:
    """How `answerer` answers prompts in the template of that name."""
    settings, device = answerer.settings, answerer.model.device
    return Conditions(
        settings=settings.model_dump(mode="json"),
        seed=seed,
        template=template if settings.prompt_style == "template" else None,
        stop_tokens=answerer.ending.tokens(),
        stop_texts=answerer.ending.texts,
        batching=answerer.batching,
        dtype=str(answerer.model.dtype).removeprefix("torch."),
        attention=answerer.model.config._attn_implementation,
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        versions=versions(),
    )
