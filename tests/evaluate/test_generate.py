"""Guards the stage: answers in whatever shards and after whatever restarts are the same, and none is made twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from hpcsft.data.preprocess import preprocess
from hpcsft.data.trained_template import trained_template
from hpcsft.errors import InputError, StageError, Stopped
from hpcsft.evaluate.generate import generate
from hpcsft.evaluate.generation.conditions import read_conditions
from hpcsft.evaluate.outputs import collect_answers, journal, read_answers
from hpcsft.evaluate.prompts import load_prompts
from hpcsft.models.load import load_model
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.records import write_json
from hpcsft.rundir import RunDir
from hpcsft.stage import StageContext
from tests.evaluate.conftest import QUESTIONS
from tests.prepared import begun, context_of, new_run


def test_the_template_of_training_is_known_without_its_rows(spec_values, tmp_path):
    """Shards may be removed to save space, and a template file edited, before a run is evaluated again."""
    template = tmp_path / "own.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role + ': ' + m.content + (eos_token if m.role == 'assistant' else ' ') }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    spec_values["data"]["template"] = str(template)
    run = new_run(spec_values)
    preprocess(begun(run, "preprocess"))
    before = template.read_text()
    template.write_text("another")
    shards = list(run.data.glob("*.arrow"))
    assert shards
    for shard in shards:
        shard.unlink()
    tokenizer = load_tokenizer(spec_values["model"]["path"])
    assert trained_template(run, context_of(run, "generate").spec, tokenizer).source == before


@pytest.fixture
def values(spec_values, tmp_path, answering_model) -> dict[str, Any]:
    """The spec of a run that evaluates the base model only, on QUESTIONS."""
    rows = [{"instruction": question, "output": "x"} for question in QUESTIONS]
    write_json(tmp_path / "questions.json", rows)
    spec_values["model"]["path"] = str(answering_model)
    spec_values["evaluate"].update(
        prompts=str(tmp_path / "questions.json"),
        checkpoints=["base"],
        shards=1,
        generation={"max_new_tokens": 40, "batch_size": 2},
    )
    return spec_values


def journals(run: RunDir) -> dict[str, tuple[bytes, int]]:
    files = (run.evaluate / "base").glob("answers-*.jsonl")
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_shards_share_the_prompts(values, shards):
    values["evaluate"]["shards"] = shards
    run = new_run(values)
    for index in reversed(range(shards)):
        context = context_of(run, "generate", index)
        generate(context)
    lines = [len(content.splitlines()) for content, _ in journals(run).values()]
    assert len(lines) == shards and sum(lines) == 9 and max(lines) - min(lines) <= 1
    answers = collect_answers(run, "base", load_prompts(values["evaluate"]["prompts"]))
    assert [answer.output for answer in answers] == list(QUESTIONS.values())
    status = run.read_status("generate", 0, shards)
    assert (status.progress.done, status.progress.total) == (-(-9 // shards), -(-9 // shards))


def test_a_second_run_answers_nothing_again(values, capsys):
    run = new_run(values)
    generate(context_of(run, "generate"))
    before = journals(run)
    assert "base: 9 answers" in capsys.readouterr().out
    generate(context_of(run, "generate"))
    assert journals(run) == before
    assert capsys.readouterr().out == ""


def told_to_stop(context: StageContext, after: int) -> None:
    """Let SIGTERM come when so many answers are there."""
    tell = context.progress

    def progress(done: int, total: int, unit: str) -> None:
        tell(done, total, unit)
        if done >= after:
            context.notice.request("SIGTERM")

    context.progress = progress


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_task_that_is_told_to_stop_keeps_its_answers_and_makes_only_the_rest(
    values, tmp_path, capsys, monkeypatch, temperature
):
    values["evaluate"]["generation"].update(temperature=temperature, max_new_tokens=12)
    whole = new_run({**values, "runs_dir": str(tmp_path / "whole")})
    generate(context_of(whole, "generate"))
    run = new_run(values)
    context = context_of(run, "generate")
    told_to_stop(context, after=4)
    with pytest.raises(Stopped, match=r"stopped by SIGTERM after [45] of 9 answers"):
        generate(context)
    kept = journal(run, "base", 0).read_bytes()
    num_kept = len(kept.splitlines())
    assert num_kept in (4, 5)
    capsys.readouterr()
    passes = watched(monkeypatch)
    generate(context_of(run, "generate"))
    assert f"base: {9 - num_kept} answers" in capsys.readouterr().out
    assert sum(rows for rows, columns in passes if columns > 1) == 9 - num_kept
    assert read_answers(run, "base") == read_answers(whole, "base")
    assert journal(run, "base", 0).read_bytes().startswith(kept)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, columns) of what models are given from now on."""
    passes: list[tuple[int, int]] = []

    def load(*arguments: Any) -> PreTrainedModel:
        model = load_model(*arguments)
        model.register_forward_pre_hook(
            lambda _, __, inputs: passes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
        )
        return model

    monkeypatch.setattr("hpcsft.evaluate.generate.load_model", load)
    return passes


def test_an_answer_is_kept_while_others_of_its_batch_go_on(values):
    values["evaluate"]["generation"]["batch_size"] = 9
    run = new_run(values)
    context = context_of(run, "generate")
    told_to_stop(context, after=1)
    with pytest.raises(Stopped, match=r"after [1-4] of 9 answers"):
        generate(context)
    kept = list(read_answers(run, "base").values())
    assert 1 <= len(kept) <= 4
    assert "ten" not in " ".join(answer.output for answer in kept)


def test_a_signal_is_obeyed_in_the_middle_of_an_answer(values, monkeypatch):
    passes = watched(monkeypatch)
    values["evaluate"]["generation"].update(temperature=3.0, max_new_tokens=200)
    run = new_run(values)
    context = context_of(run, "generate")
    context.notice.request("SIGTERM")
    with pytest.raises(Stopped, match="stopped by SIGTERM after 0 of 9 answers"):
        generate(context)
    assert len(passes) == 1


def test_how_answers_were_made_is_written_beside_them(values):
    values["evaluate"]["generation"].update(stop=["###"])
    run = new_run(values)
    assert read_conditions(run, "base") is None
    generate(context_of(run, "generate"))
    found = read_conditions(run, "base")
    assert (found.batching, found.dtype, found.device, found.attention) == ("sorted", "float32", "cpu", "sdpa")
    assert (found.template, found.stop_texts, found.seed) == ("user_assistant", ["###"], 7)
    assert found.settings["max_new_tokens"] == 40
    assert set(found.versions) == {"torch", "transformers"}
    assert {(answer.batching, answer.dtype) for answer in read_answers(run, "base").values()} == {
        ("sorted/2", "float32")
    }


def test_a_prompt_without_room_for_an_answer_ends_the_stage_before_it_answers(values):
    rows = [{"instruction": "Hi", "output": "x"}, {"instruction": "word " * 600, "output": "x"}]
    write_json(Path(values["evaluate"]["prompts"]), rows)
    run = new_run(values)
    with pytest.raises(StageError, match=r"row 1 takes \d+ tokens; the model's context of 512 tokens leaves no room"):
        generate(context_of(run, "generate"))
    assert not read_answers(run, "base")


def test_a_killed_task_goes_on_where_it_was(values, capsys):
    """Killed while it wrote the fourth line: whole lines are kept, the torn one and those that are missing are made."""
    run = new_run(values)
    generate(context_of(run, "generate"))
    whole = read_answers(run, "base")
    file = journal(run, "base", 0)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    capsys.readouterr()
    generate(context_of(run, "generate"))
    assert "base: 6 answers" in capsys.readouterr().out
    assert read_answers(run, "base") == whole
    assert file.read_bytes().startswith(b"".join(lines[:3]))


def test_a_killed_task_samples_what_it_would_have_sampled(values):
    values["evaluate"]["generation"].update(temperature=2.0, max_new_tokens=12)
    run = new_run(values)
    generate(context_of(run, "generate"))
    whole = read_answers(run, "base")
    file = journal(run, "base", 0)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:3]))
    generate(context_of(run, "generate"))
    assert read_answers(run, "base") == whole


def test_a_checkpoint_that_is_not_there_is_asked_for(values):
    values["evaluate"]["checkpoints"] = ["epoch-2"]
    run = new_run(values)
    with pytest.raises(InputError, match=rf"{os.path.join('models', 'epoch-2')} is missing"):
        generate(context_of(run, "generate"))


def test_prompts_that_changed_are_answered_again(values):
    """The message of `judge` says so: generate makes only what is missing."""
    run = new_run(values)
    generate(context_of(run, "generate"))
    rows = [{"instruction": question, "output": "x"} for question in reversed(QUESTIONS)]
    write_json(Path(values["evaluate"]["prompts"]), rows)
    context = context_of(run, "generate")
    generate(context)
    answers = collect_answers(run, "base", load_prompts(values["evaluate"]["prompts"]))
    assert [answer.output for answer in answers] == list(QUESTIONS.values())[::-1]
