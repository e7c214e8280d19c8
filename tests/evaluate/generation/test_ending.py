"""Guards the ends of answers: what ends them for which template, that a text is seen however its tokens are cut, and
that nothing of it is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsft.data.templates import make_template
from hpcsft.evaluate.generation.ending import Ending, next_turn
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.spec.evaluate import GenerationSpec
from tests.architectures import folders

HASHES = (
    "{% for m in messages %}"
    "{{ '### ' + m.role + ': ' + m.content + (eos_token if m.role == 'assistant' else '') + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### assistant: ' }}{% endif %}"
)
INST = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
SYSTEM_FIRST = "{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}" + HASHES
ONE_TURN = "{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}" + HASHES
BARE = "{% for m in messages %}{{ m.content + (eos_token if m.role == 'assistant' else '\n') }}{% endfor %}"


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(str(tiny_model))


def ending_of(tokenizer: Any, template: str | Path = "user_assistant", **settings: Any) -> Ending:
    return Ending(tokenizer, make_template(template, tokenizer), GenerationSpec(**settings))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("user_assistant", (None, "\nUser:")),
        ("chatml", ("<|im_start|>", None)),
        (HASHES, (None, "\n### user:")),
        (INST, ("<s>", None)),
        (SYSTEM_FIRST, (None, "\n### user:")),
        (ONE_TURN, (None, None)),
        (BARE, (None, None)),
    ],
)
def test_what_begins_the_next_turn_is_the_templates(tokenizer, tmp_path, template, expected):
    if "{%" in template:
        file = tmp_path / "own.jinja"
        file.write_text(template)
        template = file
    token, text = next_turn(make_template(template, tokenizer))
    assert (token if token is None else tokenizer.convert_ids_to_tokens(token), text) == expected


def test_the_spec_says_otherwise(tokenizer):
    assert ending_of(tokenizer).texts == ["\nUser:"]
    assert ending_of(tokenizer, stop=[]).texts == []
    assert ending_of(tokenizer, prompt_style="raw").texts == []
    assert ending_of(tokenizer, prompt_style="raw", stop=["\n"]).texts == ["\n"]
    assert ending_of(tokenizer, "chatml", stop=["###"]).texts == ["###"]


def test_end_tokens_are_those_of_template_and_tokenizer(tokenizer):
    eos, start, end = tokenizer.convert_tokens_to_ids(["</s>", "<|im_start|>", "<|im_end|>"])
    assert ending_of(tokenizer).tokens() == [eos]
    chatml = ending_of(tokenizer, "chatml")
    assert chatml.tokens() == sorted([eos, start, end])
    assert [chatml.finish([9, token], 5) for token in (eos, end, start, 9)] == ["stop", "stop", "turn", None]
    assert [chatml.text([*tokenizer.encode("Hi there"), token]) for token in (eos, end, start)] == ["Hi there"] * 3


def test_a_text_that_is_a_token_ends_at_the_token(tokenizer):
    """It would not be seen in the text, from which such tokens are left out."""
    ending = ending_of(tokenizer, stop=["<|im_start|>", "x"])
    assert (ending.finish([9, tokenizer.convert_tokens_to_ids("<|im_start|>")], 5), ending.texts) == ("turn", ["x"])


def answer_of(ending: Ending, ids: list[int], budget: int = 1000) -> tuple[list[int], str | None]:
    """What a model that says `ids`, one after the other, is heard of, and how it ends."""
    for length in range(1, len(ids) + 1):
        if finish := ending.finish(ids[:length], budget):
            return ids[:length], finish
    return ids, None


@pytest.mark.parametrize("kind", ["smollm2", "llama-2", "baichuan2"])
@pytest.mark.parametrize("before", ["", "An answer.", "它是水。😀", "Ends in a line\n", "Use", "a " * 40])
def test_a_text_is_seen_when_its_last_token_comes(tiny_model, tmp_path, kind, before):
    tokenizer = load_tokenizer(str(folders.published(kind, tmp_path / kind, tiny_model)))
    ending = ending_of(tokenizer)
    ids = tokenizer.encode(f"{before}\nUser: And then?", add_special_tokens=False)
    cut, finish = answer_of(ending, ids)
    assert (finish, ending.text(cut)) == ("turn", before.strip())
    assert 1 < len(cut) < len(ids)
    assert "\nUser:" not in tokenizer.decode(cut[:-1])


def test_an_answer_that_says_user_goes_on(tokenizer):
    ending = ending_of(tokenizer)
    ids = tokenizer.encode("The User: a person.\n User: x \nUser", add_special_tokens=False)
    assert answer_of(ending, ids) == (ids, None)
    assert answer_of(ending, ids, budget=4) == (ids[:4], "length")
    assert ending.text(ids) == "The User: a person.\n User: x \nUser"


def test_the_first_of_several_texts_counts(tokenizer):
    ending = ending_of(tokenizer, stop=["b c", "b"])
    assert ending.text(tokenizer.encode("a b c d", add_special_tokens=False)) == "a"
