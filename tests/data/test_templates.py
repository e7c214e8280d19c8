"""Guards the text that the model reads: the exact pieces of each template; only answers and their end are learnt."""

from __future__ import annotations

import pytest

from hpcsft.data.formats import Turn
from hpcsft.data.templates import Piece, SpecialTokens, make_template
from hpcsft.errors import StageError

TOKENS = SpecialTokens(bos=1, eos=2, im_start=3, im_end=4)
SPELLED = {1: "<s>", 2: "</s>", 3: "<|im_start|>", 4: "<|im_end|>"}
DIALOG = [Turn("user", "q1"), Turn("assistant", "a1"), Turn("user", "q2"), Turn("assistant", "a2")]
SYSTEM = Turn("system", "be brief")


def spelled(pieces: list[Piece]) -> str:
    """The pieces as a reader sees them, what is learnt in guillemets."""
    words = [(SPELLED[piece.content] if isinstance(piece.content, int) else piece.content, piece) for piece in pieces]
    return "".join(f"«{word}»" if piece.supervised else word for word, piece in words).replace("»«", "")


@pytest.mark.parametrize(
    ("name", "system", "expected"),
    [
        (
            "user_assistant",
            False,
            "<s>User: q1</s>\nAssistant: «a1</s>»\nUser: q2</s>\nAssistant: «a2</s>»",
        ),
        (
            "user_assistant",
            True,
            "<s>System: be brief</s>\nUser: q1</s>\nAssistant: «a1</s>»\nUser: q2</s>\nAssistant: «a2</s>»",
        ),
        (
            "chatml",
            True,
            "<|im_start|>system\nbe brief<|im_end|>\n"
            "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\n«a1<|im_end|>»\n"
            "<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n«a2<|im_end|>»\n",
        ),
    ],
)
def test_the_text_of_a_conversation(name, system, expected):
    turns = [SYSTEM, *DIALOG] if system else DIALOG
    pieces = [piece for turn in make_template(name, TOKENS).conversation(turns) for piece in turn]
    assert spelled(pieces) == expected


@pytest.mark.parametrize("name", ["user_assistant", "chatml"])
def test_generation_stops_at_the_token_that_is_learnt_last(name):
    template = make_template(name, TOKENS)
    learnt = [piece.content for turn in template.conversation(DIALOG) for piece in turn if piece.supervised]
    assert learnt == ["a1", template.end, "a2", template.end]


@pytest.mark.parametrize("name", ["user_assistant", "chatml"])
@pytest.mark.parametrize("head", [[], [SYSTEM]])
def test_what_precedes_an_answer_is_what_training_saw(name, head):
    template = make_template(name, TOKENS)
    whole = spelled([piece for turn in template.conversation(head + DIALOG) for piece in turn])
    for answer in ("a1", "a2"):
        turns = head + DIALOG[: 1 if answer == "a1" else 3]
        prefix = spelled(template.answer_prefix(turns))
        assert whole.startswith(prefix) and whole.removeprefix(prefix).startswith("«" + answer)


def test_without_bos_a_row_starts_with_its_text():
    template = make_template("user_assistant", SpecialTokens(bos=None, eos=2))
    assert spelled(template.answer_prefix(DIALOG[:1])) == "User: q1</s>\nAssistant: "


def test_a_token_whose_id_is_zero_is_a_token():
    template = make_template("user_assistant", SpecialTokens(bos=0, eos=0))
    assert template.answer_prefix(DIALOG[:1])[0] == Piece(0) and template.end == 0
    assert make_template("chatml", SpecialTokens(bos=None, eos=None, im_start=0, im_end=0)).end == 0


def test_tokens_that_a_template_needs_are_asked_for():
    with pytest.raises(StageError, match="the tokenizer has no end-of-sequence token"):
        make_template("user_assistant", SpecialTokens(bos=1, eos=None))
    for tokens in (SpecialTokens(1, 2, im_start=3), SpecialTokens(1, 2, im_end=4)):
        with pytest.raises(StageError, match=r"chatml needs the tokens <\|im_start\|> and <\|im_end\|>"):
            make_template("chatml", tokens)
