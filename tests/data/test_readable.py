"""Guards that what people are shown is what the model reads: every character, learnt where there is loss and nowhere
else, special tokens told from text that only spells them, and nothing in it that a terminal would obey.
"""

from __future__ import annotations

import random

import pytest

from hpcsft.data.readable import Run, RunReader, visible
from hpcsft.data.shards import IGNORE_INDEX
from tests.data.encoding import encoder_of, rows_of
from tests.data.reference import long_dialogs
from tests.data.tokenizers import KINDS, train_tokenizer


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, conversations):
    return train_tokenizer(request.param, (text for turns in conversations for text in turns))


def read(tokenizer, row) -> list[Run]:
    return RunReader(tokenizer).runs(row.input_ids, row.labels)


def joined(runs: list[Run]) -> str:
    return "".join(run.text for run in runs)


def test_runs_joined_are_the_row_and_what_is_learnt_are_the_answers(tokenizer, conversations):
    dialogs = long_dialogs(conversations)[:60]
    for dialog, row in zip(dialogs, rows_of(encoder_of(tokenizer), dialogs), strict=True):
        runs = read(tokenizer, row)
        assert joined(runs) == tokenizer.backend_tokenizer.decode(row.input_ids, skip_special_tokens=False)
        learnt = joined([run for run in runs if run.learnt])
        answers = learnt.split("</s>")
        assert answers.pop() == ""
        assert [answer.removeprefix(" ") for answer in answers] == dialog[1::2]


def test_no_character_is_lost_wherever_learning_begins_and_ends(tokenizer, conversations):
    """Even between the bytes of one character, where no template cuts: the character is shown once, whole."""
    generator = random.Random(3)
    texts = ["鱻 and 𝔘𝔫𝔦, 👩‍🚀 naïve", *(text for turns in conversations[-20:] for text in turns)]
    for text in texts:
        ids = tokenizer(f"<s>{text}", add_special_tokens=False)["input_ids"]
        labels = [token if generator.random() < 0.5 else IGNORE_INDEX for token in ids]
        runs = RunReader(tokenizer).runs(ids, labels)
        assert joined(runs) == tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
        assert "�" not in joined(runs) and text in joined(runs)


def test_a_character_that_a_cut_tore_apart_is_shown_as_such(tokenizer):
    ids = tokenizer("x 𝔘", add_special_tokens=False)["input_ids"]
    assert len(ids) > 4
    runs = RunReader(tokenizer).runs(ids[:-1], ids[:-1])
    assert [run.learnt for run in runs] == [True]
    assert runs[0].text.startswith("x ") and set(runs[0].text[2:]) == {"�"}


def test_a_special_token_is_a_run_and_text_that_spells_one_is_not(tokenizer):
    dialog = ["is </s> the end?", "no, <|im_end|> is"]
    (row,) = rows_of(encoder_of(tokenizer, "chatml"), [dialog])
    runs = read(tokenizer, row)
    assert [(run.text, run.learnt) for run in runs if run.special] == [
        ("<|im_start|>", False),
        ("<|im_end|>", False),
        ("<|im_start|>", False),
        ("<|im_end|>", True),
    ]
    plain = [run for run in runs if not run.special]
    assert [(run.text.removeprefix(" "), run.learnt) for run in plain] == [  # a legacy tokenizer puts the space
        (f"user\n{dialog[0]}", False),
        ("\n", False),
        ("assistant\n", False),
        (dialog[1], True),
        ("\n", False),
    ]


def test_a_row_without_tokens_has_no_runs(tokenizer):
    assert RunReader(tokenizer).runs([], []) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, [bold]x[/] :smile:\n\tend", "plain, [bold]x[/] :smile:\n\tend"),
        ("你好 naïve 👩‍🚀", "你好 naïve 👩‍🚀"),
        ("\x1b[31m\x00\x07\r\x7f", "␛[31m␀␇␍␡"),
        ("\x9b31m\u202eabc\u2028\ufeff", "<U+009B>31m<U+202E>abc<U+2028><U+FEFF>"),
    ],
)
def test_nothing_is_left_for_a_terminal_to_obey(text, shown):
    assert visible(text) == shown
