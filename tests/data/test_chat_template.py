"""Guards that a server gives a trained model the tokens that it was trained with."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken

from hpcsft.data.chat_template import chat_template
from hpcsft.data.encode import encode_prefix
from hpcsft.data.formats import Conversation, Turn
from hpcsft.data.templates import make_template
from hpcsft.data.tokens import TextEncoder
from hpcsft.errors import StageError
from hpcsft.models.tokenizer import load_tokenizer
from tests.data.tokenizers import KINDS, train_tokenizer
from tests.models.spm import LAYOUTS, trained, utterances, write

SYSTEM = Turn("system", "Answer briefly, 请.")
OWN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module", params=[*KINDS, "without bos", *LAYOUTS])
def tokenizer(request, conversations, tmp_path_factory) -> Any:
    if request.param in KINDS:
        return train_tokenizer(request.param, [text for texts in conversations for text in texts])
    if request.param == "without bos":
        files = {"tokenizer__model": trained("llama", bos_id=-1), "tokenizer_config__json": {"legacy": False}}
        return load_tokenizer(str(write(tmp_path_factory.mktemp("layout") / "m", **files)))
    return load_tokenizer(str(LAYOUTS[request.param](tmp_path_factory.mktemp("layout") / "m")))


def as_served(tokenizer: Any, template: str, turns: Conversation) -> list[int]:
    """What a server gives the model."""
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    return tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]


def as_trained(tokenizer: Any, name: str, turns: Conversation) -> list[int]:
    """What the model read before the answer."""
    return encode_prefix(make_template(name, tokenizer), TextEncoder(tokenizer), turns)


def has_chatml(tokenizer: Any) -> bool:
    return "<|im_start|>" in tokenizer.get_added_vocab()


@pytest.mark.parametrize("name", ["user_assistant", "chatml"])
def test_before_the_first_answer_tokens_are_those_of_training(tokenizer, name):
    if name == "chatml" and not has_chatml(tokenizer):
        with pytest.raises(StageError, match="chatml needs the tokens"):
            chat_template(name, None, tokenizer)
        return
    template = chat_template(name, None, tokenizer)
    for text in (*utterances()[::100], " x ", "\n", "a  b\n\n", "12 😀"):
        for head in ([], [SYSTEM]):
            turns = [*head, Turn("user", text)]
            assert as_served(tokenizer, template, turns) == as_trained(tokenizer, name, turns)


def test_chatml_gives_the_tokens_of_training_in_later_turns_too(tokenizer):
    if not has_chatml(tokenizer):
        return
    template = chat_template("chatml", None, tokenizer)
    texts = [text for text in utterances()[::50] if "\n" not in text]
    for first, answer, second in zip(texts, texts[1:], texts[2:], strict=False):
        turns = [Turn("user", first), Turn("assistant", answer), Turn("user", second)]
        assert as_served(tokenizer, template, turns) == as_trained(tokenizer, "chatml", turns)


def test_of_earlier_answers_only_the_start_differs(tokenizer):
    """In user_assistant, which trains them as texts of their own."""
    template = chat_template("user_assistant", None, tokenizer)
    for answer, second in zip(utterances()[::100], utterances()[1::100], strict=False):
        turns = [Turn("user", "Hi"), Turn("assistant", answer), Turn("user", second)]
        served, trained = (
            make(tokenizer, key, turns) for make, key in ((as_served, template), (as_trained, "user_assistant"))
        )
        start = len(as_trained(tokenizer, "user_assistant", turns[:1])) - 1
        end = tokenizer.eos_token_id
        assert served[:start] == trained[:start]
        assert served[served.index(end, start) :] == trained[trained.index(end, start) :]
        spelled = [tokenizer.decode(ids[start : ids.index(end, start)]) for ids in (served, trained)]
        assert spelled[0].split() == spelled[1].split()


def test_a_template_in_jinja_is_given_as_it_was(tmp_path, tokenizer):
    file = tmp_path / "own.jinja"
    file.write_text(OWN)
    assert chat_template(str(file), None, tokenizer) == OWN
    assert chat_template(str(file), "{{ 1 }}", tokenizer) == "{{ 1 }}"
    assert chat_template("tokenizer", "{{ 2 }}", tokenizer) == "{{ 2 }}"


def test_without_the_tokens_of_training_there_is_no_template(conversations):
    """Here eos takes the newline after it away, which training keeps."""
    tokenizer = train_tokenizer("byte-level", [text for texts in conversations[:50] for text in texts])
    tokenizer.add_tokens([AddedToken("<|stop|>", rstrip=True, special=True)], special_tokens=True)
    tokenizer.eos_token = "<|stop|>"
    assert chat_template("user_assistant", None, tokenizer) is None
