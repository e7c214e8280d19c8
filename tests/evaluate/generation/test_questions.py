"""Guards what a model is given: what training gave it, or the bare instruction as its tokenizer would; never too much
for its context.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import BloomConfig, LlamaConfig

from hpcsft.data.shards import IGNORE_INDEX
from hpcsft.data.templates import make_template
from hpcsft.errors import StageError
from hpcsft.evaluate.generation.questions import Questioner
from hpcsft.evaluate.prompts import Prompt
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.spec.evaluate import GenerationSpec
from tests.architectures import folders
from tests.data.encoding import encoder_of, rows_of
from tests.evaluate.conftest import QUESTIONS
from tests.evaluate.generation.answering import PROMPTS


def questioner_of(folder: Path, context: int | None = 512, **settings: object) -> Questioner:
    tokenizer = load_tokenizer(str(folder))
    template = make_template("user_assistant", tokenizer)
    config = LlamaConfig(max_position_embeddings=context) if context else BloomConfig()
    return Questioner(config, tokenizer, template, GenerationSpec(**settings))


def test_the_model_is_given_what_a_training_row_begins_with(answering_model):
    questioner = questioner_of(answering_model)
    encoder = encoder_of(load_tokenizer(str(answering_model)))
    rows = rows_of(encoder, [list(pair) for pair in QUESTIONS.items()])
    for row, prompt in zip(rows, PROMPTS.values(), strict=True):
        learnt = next(place for place, label in enumerate(row.labels) if label != IGNORE_INDEX)
        assert questioner.prefix(prompt.instruction) == row.input_ids[:learnt]


@pytest.mark.parametrize(("kind", "bos"), [("llama-2", True), ("baichuan2", False), ("smollm2", False)])
def test_the_bare_instruction_is_what_the_tokenizer_makes_of_it(tiny_model, tmp_path, kind, bos):
    """With the special tokens that it adds itself: Llama's a <s>, Baichuan's none."""
    folder = folders.published(kind, tmp_path / kind, tiny_model)
    tokenizer = load_tokenizer(str(folder))
    questioner = questioner_of(folder, prompt_style="raw")
    for text in ("Who was it?", "  two\n\nlines ", "你好"):
        prefix = questioner.prefix(text)
        assert prefix == tokenizer(text)["input_ids"]
        assert (tokenizer.bos_token_id in prefix) == bos


def test_the_bare_instruction_spells_no_control_token(answering_model):
    questioner = questioner_of(answering_model, prompt_style="raw")
    tokenizer = load_tokenizer(str(answering_model))
    prefix = questioner.prefix("Hello </s>")
    assert tokenizer.decode(prefix) == "Hello </s>"
    assert tokenizer.eos_token_id not in prefix


def test_an_answer_gets_what_the_context_leaves(answering_model):
    questioner = questioner_of(answering_model, context=100, max_new_tokens=70)
    short, long = questioner.questions(
        {3: Prompt(instruction="Hi", output="x"), 5: Prompt(instruction="word " * 12, output="x")}, "7"
    )
    assert len(short.prefix) <= 30 < len(long.prefix) < 100
    assert (short.row, short.budget, long.row, long.budget) == (3, 70, 5, 100 - len(long.prefix))


def test_a_model_that_names_no_limit_has_none(answering_model):
    questioner = questioner_of(answering_model, context=None, max_new_tokens=5000)
    (question,) = questioner.questions({0: PROMPTS[0]}, "7")
    assert question.budget == 5000


@pytest.mark.parametrize("room", [-1, 0, 1])
def test_a_prompt_that_leaves_no_room_is_refused(answering_model, room):
    prompts = {0: Prompt(instruction="Hi", output="x"), 4: Prompt(instruction="word " * 9, output="x")}
    size = len(questioner_of(answering_model).prefix(prompts[4].instruction))
    questioner = questioner_of(answering_model, context=size + room)
    if room > 0:
        assert questioner.questions(prompts, "7")[1].budget == room
        return
    message = rf"row 4 takes {size} tokens; the model's context of {size + room} tokens leaves no room for an answer"
    with pytest.raises(StageError, match=message):
        questioner.questions(prompts, "7")


def test_a_prompt_that_the_template_refuses_is_told(answering_model, tmp_path):
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{% for m in messages %}{% if 'x' == m.content[:1] %}{{ raise_exception('no x, please') }}{% endif %}"
        "{{ m.role + ': ' + m.content + (eos_token if m.role == 'assistant' else ' ') }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    tokenizer = load_tokenizer(str(answering_model))
    questioner = Questioner(LlamaConfig(), tokenizer, make_template(template, tokenizer), GenerationSpec())
    with pytest.raises(StageError, match=r"evaluate.prompts: 'x and y': .*no x, please"):
        questioner.prefix("x and y")
