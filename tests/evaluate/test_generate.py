"""Guards the answers: the same whichever prompts are answered together, in how many shards and after how many restarts;
without the prompt; cut exactly at the end token; and never made twice.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcsft.data.preprocess import preprocess
from hpcsft.data.shards import IGNORE_INDEX
from hpcsft.data.templates import make_template
from hpcsft.data.trained_template import trained_template
from hpcsft.errors import InputError, Stopped
from hpcsft.evaluate.generate import Answerer, generate, left_padded
from hpcsft.evaluate.outputs import Answer, collect_outputs, journal, read_answers
from hpcsft.evaluate.prompts import Prompt, load_prompts
from hpcsft.models.load import load_model
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.records import write_json
from hpcsft.rundir import RunDir
from hpcsft.spec.evaluate import GenerationSpec
from tests.data.encoding import encoder_of, rows_of
from tests.evaluate.conftest import QUESTIONS
from tests.prepared import begun, context_of, new_run

PROMPTS = {row: Prompt(instruction=question, output="x") for row, question in enumerate(QUESTIONS)}


def answerer_of(folder: Path, template: str, settings: GenerationSpec) -> Answerer:
    tokenizer = load_tokenizer(str(folder))
    return Answerer(load_model(str(folder), "float32"), tokenizer, make_template(template, tokenizer), settings)


def answers_of(folder: Path, prompts: dict[int, Prompt] = PROMPTS, **settings: Any) -> dict[int, Answer]:
    answerer = answerer_of(folder, "user_assistant", GenerationSpec(**{"max_new_tokens": 40, **settings}))
    return {answer.row: answer for batch in answerer.answers(prompts, seed="7/base") for answer in batch}


@pytest.fixture(scope="module")
def one_at_a_time(answering_model) -> dict[int, tuple[list[int], bool]]:
    """Greedy answers by the definition: the most likely token again and again, without padding and without cache."""
    model = load_model(str(answering_model), "float32")
    tokenizer = load_tokenizer(str(answering_model))
    found = {}
    for row, prompt in PROMPTS.items():
        ids = [tokenizer.bos_token_id]
        for text in (f"User: {prompt.instruction}", None, "\nAssistant: "):
            plain = {"add_special_tokens": False, "split_special_tokens": True}
            ids += [tokenizer.eos_token_id] if text is None else tokenizer(text, **plain)["input_ids"]
        start = len(ids)
        with torch.no_grad():
            while len(ids) < start + 40:
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] == tokenizer.eos_token_id:
                    break
        found[row] = ids[start:]
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_greedy_answers_do_not_depend_on_the_batch(answering_model, one_at_a_time, batch_size):
    tokenizer = load_tokenizer(str(answering_model))
    answers = answers_of(answering_model, batch_size=batch_size)
    assert sorted(answers) == list(PROMPTS)
    for row, ids in one_at_a_time.items():
        ended = ids[-1] == tokenizer.eos_token_id
        expected = tokenizer.decode(ids[:-1] if ended else ids).strip()
        answer = answers[row]
        assert (answer.output, answer.num_tokens) == (expected, len(ids))
        assert answer.finish == ("stop" if ended else "length")
        assert answer.instruction == PROMPTS[row].instruction


def test_what_was_learnt_is_answered_and_nothing_else(answering_model):
    answers = answers_of(answering_model, batch_size=4)
    assert {answer.instruction: answer.output for answer in answers.values()} == QUESTIONS
    assert {answer.finish for answer in answers.values()} == {"stop"}


@pytest.mark.parametrize("max_new_tokens", [1, 3, 6])
def test_an_answer_that_does_not_end_is_cut_and_says_so(answering_model, one_at_a_time, max_new_tokens):
    answers = answers_of(answering_model, max_new_tokens=max_new_tokens, batch_size=4)
    tokenizer = load_tokenizer(str(answering_model))
    cut = 0
    for row, ids in one_at_a_time.items():
        if len(ids) > max_new_tokens:
            cut += 1
            expected = tokenizer.decode(ids[:max_new_tokens]).strip()
            assert (answers[row].output, answers[row].finish) == (expected, "length")
            assert answers[row].num_tokens == max_new_tokens
        else:
            assert (answers[row].finish, answers[row].num_tokens) == ("stop", len(ids))
    assert cut and (max_new_tokens < 3 or cut < len(answers))


def test_the_model_is_given_what_a_training_row_begins_with(answering_model):
    answerer = answerer_of(answering_model, "user_assistant", GenerationSpec())
    encoder = encoder_of(load_tokenizer(str(answering_model)))
    rows = rows_of(encoder, [list(pair) for pair in QUESTIONS.items()])
    for row, prompt in zip(rows, PROMPTS.values(), strict=True):
        learnt = next(place for place, label in enumerate(row.labels) if label != IGNORE_INDEX)
        assert answerer.prefix(prompt.instruction) == row.input_ids[:learnt]


@pytest.mark.parametrize("template", ["user_assistant", "chatml"])
def test_generation_stops_at_the_end_of_the_longest_answer(answering_model, one_at_a_time, template):
    """A batch that runs on to max_new_tokens gives the same answers for many times the GPU hours. For ChatML the model
    is made to say <|im_end|> where it says </s>."""
    settings = GenerationSpec(max_new_tokens=200)
    answerer = answerer_of(answering_model, template, settings)
    plain = answerer_of(answering_model, "user_assistant", settings)
    eos, end = plain.template.end, answerer.template.end
    with torch.no_grad():
        head = answerer.model.lm_head.weight
        head[[eos, end]] = head[[end, eos]]
    passes = []
    answerer.model.register_forward_hook(lambda *_: passes.append(1))
    outputs = answerer._generate([plain.prefix(prompt.instruction) for prompt in PROMPTS.values()])
    assert outputs == [[*ids[:-1], end] for ids in one_at_a_time.values()]
    assert len(passes) == max(map(len, outputs)) < 100


def test_the_bare_instruction_is_another_prefix(answering_model):
    answerer = answerer_of(answering_model, "user_assistant", GenerationSpec(prompt_style="raw"))
    text = answerer.tokenizer.decode(answerer.prefix("Hello </s>"))
    assert text == "<s>Hello </s>"
    assert answerer.prefix("Hello </s>").count(answerer.tokenizer.eos_token_id) == 0


def test_sampling_is_drawn_with_the_seed(answering_model):
    def drawn(seed: str) -> list[str]:
        settings = GenerationSpec(temperature=3.0, max_new_tokens=8)
        answerer = answerer_of(answering_model, "user_assistant", settings)
        return [answer.output for batch in answerer.answers(PROMPTS, seed) for answer in batch]

    assert drawn("1") == drawn("1") != drawn("2")
    assert len(set(drawn("1"))) > 5


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


def test_padding_is_on_the_left_and_masked_by_length():
    input_ids, mask = left_padded([[5], [9, 9, 7]], pad=9)
    assert input_ids.tolist() == [[9, 9, 5], [9, 9, 7]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


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
    answers = collect_outputs(run, context.spec, "base", load_prompts(values["evaluate"]["prompts"]))
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


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_task_that_is_told_to_stop_keeps_its_answers_and_makes_only_the_rest(values, tmp_path, capsys, temperature):
    values["evaluate"]["generation"].update(temperature=temperature, max_new_tokens=12)
    whole = new_run({**values, "runs_dir": str(tmp_path / "whole")})
    generate(context_of(whole, "generate"))
    run = new_run(values)
    context = context_of(run, "generate")
    tell = context.progress

    def progress(done: int, total: int, unit: str) -> None:
        tell(done, total, unit)
        if done >= 4:
            context.notice.request("SIGTERM")

    context.progress = progress
    with pytest.raises(Stopped, match="stopped by SIGTERM after 4 of 9 answers"):
        generate(context)
    kept = journal(run, "base", 0).read_bytes()
    assert len(kept.splitlines()) == 4
    capsys.readouterr()
    generate(context_of(run, "generate"))
    assert "base: 5 answers" in capsys.readouterr().out
    assert read_answers(run, "base") == read_answers(whole, "base")
    assert journal(run, "base", 0).read_bytes().startswith(kept)


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
    answers = collect_outputs(run, context.spec, "base", load_prompts(values["evaluate"]["prompts"]))
    assert [answer.output for answer in answers] == list(QUESTIONS.values())[::-1]


def test_greedy_is_greedy_whatever_the_model_recommends(answering_model, tmp_path):
    """Qwen2.5 ships repetition_penalty 1.05, Llama 2 chat top_p 0.9: neither is in the spec."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in answering_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    write_json(folder / "generation_config.json", {"repetition_penalty": 3.0, "eos_token_id": 1})
    plain = answers_of(answering_model)
    assert {row: answer.output for row, answer in answers_of(folder).items()} == {r: a.output for r, a in plain.items()}
