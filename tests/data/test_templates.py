"""Guards the text that the model reads: the exact pieces of each template; only answers and their end are learnt."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from hpcsft.data.formats import Turn
from hpcsft.data.templates import BUILT_IN, Piece, make_template
from hpcsft.errors import StageError
from tests.data.tokenizers import KINDS, train_tokenizer

DIALOG = [Turn("user", "q1"), Turn("assistant", "a1"), Turn("user", "q2"), Turn("assistant", "a2")]
SYSTEM = Turn("system", "be brief")
CHATML = ("<|im_start|>", "<|im_end|>")


def tokenizer_with(*special, bos=None, eos=None):
    """A tokenizer whose special tokens are `special`, numbered from 0."""
    vocabulary = {token: number for number, token in enumerate((*special, "x"))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="x"))
    backend.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos)


TOKENIZER = tokenizer_with("<s>", "</s>", *CHATML, bos="<s>", eos="</s>")


def spelled(pieces, tokenizer=TOKENIZER):
    """The pieces as a reader sees them, what is learnt in guillemets."""
    words = [
        (tokenizer.convert_ids_to_tokens(piece.content) if isinstance(piece.content, int) else piece.content, piece)
        for piece in pieces
    ]
    return "".join(word if piece.answer is None else f"«{word}»" for word, piece in words).replace("»«", "")


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        (
            "user_assistant",
            [],
            "<s>User: q1</s>\nAssistant: «a1</s>»\nUser: q2</s>\nAssistant: «a2</s>»",
        ),
        (
            "user_assistant",
            [SYSTEM],
            "<s>System: be brief</s>\nUser: q1</s>\nAssistant: «a1</s>»\nUser: q2</s>\nAssistant: «a2</s>»",
        ),
        (
            "chatml",
            [SYSTEM],
            "<|im_start|>system\nbe brief<|im_end|>\n"
            "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\n«a1<|im_end|>»\n"
            "<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n«a2<|im_end|>»\n",
        ),
    ],
)
def test_the_text_of_a_conversation(name, head, expected):
    template = make_template(name, TOKENIZER)
    assert spelled(template.pieces(head + DIALOG)) == expected
    assert (template.name, template.source) == (name, None)


@pytest.mark.parametrize("name", BUILT_IN)
def test_generation_stops_at_the_token_that_is_learnt_last(name):
    template = make_template(name, TOKENIZER)
    learnt = [(piece.content, piece.answer) for piece in template.pieces(DIALOG) if piece.answer is not None]
    assert learnt == [("a1", 1), (template.end, 1), ("a2", 3), (template.end, 3)]


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("head", [[], [SYSTEM]])
def test_what_precedes_an_answer_is_what_training_saw(name, head):
    template = make_template(name, TOKENIZER)
    template.check("all_turns")
    turns = head + DIALOG
    whole = template.pieces(turns)
    for answer in (len(head) + 1, len(head) + 3):
        prefix = template.prefix(turns[:answer])
        assert whole[: len(prefix)] == prefix
        learnt = [piece for piece in whole if piece.answer == answer]
        assert learnt == whole[len(prefix) : len(prefix) + 2] and learnt[0].content == turns[answer].text


def test_user_assistant_tokenizes_each_text_as_if_it_stood_alone():
    assert not any(piece.inner for piece in make_template("user_assistant", TOKENIZER).pieces([SYSTEM, *DIALOG]))


@pytest.mark.parametrize("kind", KINDS)
def test_chatml_goes_on_after_a_special_token_as_the_tokenizer_itself_does(kind, conversations):
    """Only legacy sentencepiece begins anew there; but nothing begins anew where an answer does."""
    tokenizer = train_tokenizer(kind, (text for turns in conversations for text in turns))
    pieces = make_template("chatml", tokenizer).pieces(DIALOG)
    texts = [piece for piece in pieces if isinstance(piece.content, str)]
    assert {piece.inner for piece in texts if piece.answer is None} == {kind != "sentencepiece-legacy"}
    assert all(piece.inner for piece in texts if piece.answer is not None)


def test_without_bos_a_row_starts_with_its_text():
    template = make_template("user_assistant", tokenizer_with("</s>", eos="</s>"))
    assert template.prefix(DIALOG[:1]) == [Piece("User: q1"), Piece(0), Piece("\nAssistant: ")]


def test_a_token_whose_id_is_zero_is_a_token():
    template = make_template("user_assistant", tokenizer_with("<s>", bos="<s>", eos="<s>"))
    assert template.prefix(DIALOG[:1])[0] == Piece(0) and template.end == 0
    assert make_template("chatml", tokenizer_with(*reversed(CHATML))).end == 0


def test_tokens_that_a_template_needs_are_asked_for():
    with pytest.raises(StageError, match="the tokenizer has no end-of-sequence token"):
        make_template("user_assistant", tokenizer_with("<s>", bos="<s>"))
    for token in CHATML:
        with pytest.raises(StageError, match=r"chatml needs the tokens <\|im_start\|> and <\|im_end\|>"):
            make_template("chatml", tokenizer_with(token))


def test_built_in_templates_load_no_jinja():
    code = "import sys, hpcsft.data.templates; print({'jinja2', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
