"""Guards that a dialog gives the same turns whichever shape it is kept in, that what is no conversation is refused with
a reason that says where, and that nothing of a good conversation is lost or put in another speaker's mouth.
"""

from __future__ import annotations

import pytest

from hpcsft.data.formats import RowError, Turn, conversation_of, detect_format

QUESTION, ANSWER = "What is 1 + 1?", "It is 2."


def as_row(format: str, texts: list[str]) -> dict:
    """The dialog `texts` in the shape `format`."""
    if format == "ultrachat":
        return {"id": "7", "data": texts}
    if format == "messages":
        names, key, role, text = ("user", "assistant"), "messages", "role", "content"
    else:
        names, key, role, text = ("human", "gpt"), "conversations", "from", "value"
    return {key: [{role: names[place % 2], text: words} for place, words in enumerate(texts)]}


@pytest.mark.parametrize("format", ["ultrachat", "messages", "sharegpt"])
@pytest.mark.parametrize("told", [True, False])
def test_real_dialogs_survive_every_shape(conversations, format, told):
    assert len(conversations) > 500 and max(map(len, conversations)) > 2
    for texts in conversations:
        turns = conversation_of(as_row(format, texts), format if told else "auto")
        assert [turn.text for turn in turns] == texts
        assert [turn.role for turn in turns] == ["user", "assistant"] * (len(texts) // 2)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, "Translate."),
        ({"input": ""}, "Translate."),
        ({"input": None}, "Translate."),
        ({"input": "hola"}, "Translate.\nhola"),
    ],
)
def test_alpaca_joins_the_input(extra, expected):
    row = {"instruction": "Translate.", "output": ANSWER, **extra}
    for format in ("alpaca", "auto"):
        assert conversation_of(row, format) == [Turn("user", expected), Turn("assistant", ANSWER)]


def test_a_system_turn_is_kept():
    row = as_row("messages", [QUESTION, ANSWER])
    row["messages"].insert(0, {"role": "system", "content": "Be brief."})
    expected = [Turn("system", "Be brief."), Turn("user", QUESTION), Turn("assistant", ANSWER)]
    assert conversation_of(row) == expected


@pytest.mark.parametrize("system", [True, False])
def test_a_last_question_without_answer_is_left_off(system):
    row = as_row("messages", [QUESTION, ANSWER, "And 2 + 2?"])
    if system:
        row["messages"].insert(0, {"role": "system", "content": "Be brief."})
    assert conversation_of(row)[-1] == Turn("assistant", ANSWER)
    assert len(conversation_of(row)) == 2 + system


def test_the_keys_tell_the_format():
    alpaca = {"instruction": "a", "input": "", "output": "b"}
    assert detect_format(alpaca) == "alpaca"
    assert {detect_format(as_row(name, ["a", "b"])) for name in ("ultrachat", "messages", "sharegpt")} == {
        "ultrachat",
        "messages",
        "sharegpt",
    }


MESSAGE = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("row", "format", "reason"),
    [
        (["a", "b"], "auto", r"a row is a JSON object, this is list"),
        (
            {"text": "a", "n": 1},
            "auto",
            r"keys text, n are of no known format \(ultrachat: data; .*alpaca: instruction, ",
        ),
        ({}, "auto", r"keys \(none\) are of no known format"),
        ({"instruction": "a"}, "auto", r"keys instruction are of no known format"),
        ({"data": []}, "auto", r"no pair of question and answer"),
        ({"data": ["only a question"]}, "auto", r"no pair of question and answer"),
        ({"messages": [{"role": "system", "content": "s"}]}, "auto", r"no pair of question and answer"),
        ({"data": ["a", 3]}, "auto", r"data\[1\] is int, expected a string"),
        ({"data": "a"}, "auto", r"'data' is str, expected a list"),
        ({"data": ["a", "b"]}, "messages", r"'messages' is missing, expected a list"),
        ({"messages": ["a", "b"]}, "auto", r"messages\[0\] is str, expected an object"),
        ({"messages": [{"content": "hi"}]}, "auto", r"messages\[0\]\.role is NoneType, expected a string"),
        (
            {"messages": [MESSAGE, {"role": "tool", "content": "x"}]},
            "auto",
            r"messages\[1\]\.role is 'tool', expected one",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "auto", r"messages\[0\]\.content is NoneType"),
        ({"messages": [MESSAGE, MESSAGE]}, "auto", r"turn 2 is by 'user', expected 'assistant'"),
        ({"conversations": [{"from": "gpt", "value": "a"}] * 2}, "auto", r"turn 1 is by 'assistant', expected 'user'"),
        ({"data": ["a", " \n"]}, "auto", r"turn 2 is empty"),
        ({"instruction": "a", "input": 3, "output": "b"}, "auto", r"input is int, expected a string"),
        ({"instruction": "a", "output": None}, "auto", r"output is NoneType, expected a string"),
        ({"output": "b"}, "alpaca", r"instruction is NoneType, expected a string"),
    ],
)
def test_what_is_no_conversation_is_refused(row, format, reason):
    with pytest.raises(RowError, match=reason):
        conversation_of(row, format)


def test_a_system_turn_in_the_middle_is_refused():
    row = as_row("messages", [QUESTION, ANSWER, QUESTION, ANSWER])
    row["messages"][2]["role"] = "system"
    with pytest.raises(RowError, match="turn 3 is by 'system', expected 'user'"):
        conversation_of(row)


def test_text_that_is_no_unicode_is_refused():
    with pytest.raises(RowError, match="surrogate"):
        conversation_of({"data": ["a smile cut in two: \ud83d", "b"]})
