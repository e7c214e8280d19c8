"""Guards that a dialog gives the same turns whichever shape it is kept in, that what is no conversation is refused with
a reason that says where, and that nothing of a good conversation is lost or put in another speaker's mouth.
"""

from __future__ import annotations

import pytest

from hpcsft.data import formats
from hpcsft.data.formats import COLUMNS, RowError, Turn, check_keys, conversation_of, detect_format, is_unicode

QUESTION, ANSWER = "What is 1 + 1?", "It is 2."
SYSTEM = {"role": "system", "content": "Be brief."}


def as_row(format: str, texts: list[str]) -> dict:
    """The dialog `texts` in the shape `format`."""
    if format == "ultrachat":
        return {"id": "7", "data": texts}
    if format == "alpaca":
        history = [texts[place : place + 2] for place in range(0, len(texts) - 2, 2)]
        return {"instruction": texts[-2], "input": "", "output": texts[-1], "history": history}
    if format == "messages":
        names, key, role, text = ("user", "assistant"), "messages", "role", "content"
    else:
        names, key, role, text = ("human", "gpt"), "conversations", "from", "value"
    return {key: [{role: names[place % 2], text: words} for place, words in enumerate(texts)]}


@pytest.mark.parametrize("format", ["ultrachat", "messages", "sharegpt", "alpaca"])
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
        ({"input": " \n"}, "Translate."),
        ({"input": "hola"}, "Translate.\nhola"),
        ({"input": "hola", "system": "", "history": None}, "Translate.\nhola"),
        ({"history": [], "system": None, "text": "all of it again", "id": 3}, "Translate."),
    ],
)
def test_alpaca_joins_the_input(extra, expected):
    row = {"instruction": "Translate.", "output": ANSWER, **extra}
    for format in ("alpaca", "auto"):
        assert conversation_of(row, format) == [Turn("user", expected), Turn("assistant", ANSWER)]


def test_alpaca_with_a_system_turn_and_a_history():
    row = {"instruction": "c", "input": "d", "output": "e", "system": "s", "history": [["a", "b"]]}
    expected = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c\nd"), ("assistant", "e")]
    assert conversation_of(row) == [Turn(*turn) for turn in expected]


def test_a_system_turn_is_kept():
    row = as_row("messages", [QUESTION, ANSWER])
    row["messages"].insert(0, SYSTEM)
    expected = [Turn("system", "Be brief."), Turn("user", QUESTION), Turn("assistant", ANSWER)]
    assert conversation_of(row) == expected


@pytest.mark.parametrize("user", ["human", "user"])
@pytest.mark.parametrize("assistant", ["gpt", "assistant", "chatgpt", "bing", "bard"])
def test_everybody_who_speaks_in_sharegpt(user, assistant):
    row = {"conversations": [{"from": user, "value": QUESTION}, {"from": assistant, "value": ANSWER}]}
    assert conversation_of(row) == [Turn("user", QUESTION), Turn("assistant", ANSWER)]


def test_content_in_parts_is_joined():
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "1 + 1?"}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": ANSWER}]}
    assert conversation_of(row) == [Turn("user", QUESTION), Turn("assistant", ANSWER)]


def test_no_character_is_changed():
    texts = [" \tleading, trailing \r\n", "\ufeffé e\u0301 \u2028 <|im_end|> </s> 😀\x01"]
    assert [turn.text for turn in conversation_of({"data": texts})] == texts


def test_the_keys_tell_the_format():
    alpaca = {"instruction": "a", "input": "", "output": "b"}
    assert detect_format(alpaca) == "alpaca"
    assert {detect_format(as_row(name, ["a", "b"])) for name in ("ultrachat", "messages", "sharegpt")} == {
        "ultrachat",
        "messages",
        "sharegpt",
    }


def test_a_column_without_a_value_tells_nothing():
    """Tables of mixed rows give every row every column."""
    row = {"data": None, "instruction": None, **as_row("sharegpt", [QUESTION, ANSWER])}
    assert detect_format(row) == "sharegpt"
    assert [turn.text for turn in conversation_of(row)] == [QUESTION, ANSWER]


def test_columns_are_all_that_formats_read():
    for format in ("ultrachat", "messages", "sharegpt", "alpaca"):
        row = {"system": "s", "input": "i", "junk": 1, **as_row(format, [QUESTION, ANSWER, "c", "d"])}
        assert conversation_of({key: row[key] for key in row if key in COLUMNS}) == conversation_of(row)


MESSAGE = {"role": "user", "content": "hi"}
REPLY = {"role": "assistant", "content": "ho"}


@pytest.mark.parametrize(
    ("row", "format", "reason"),
    [
        (["a", "b"], "auto", r"a row is a JSON object, this is list"),
        (None, "auto", r"a row is a JSON object, this is NoneType"),
        (
            {"text": "a", "n": 1},
            "auto",
            r"keys text, n are of no known format \(ultrachat: data; .*alpaca: instruction, ",
        ),
        ({}, "auto", r"keys \(none\) are of no known format"),
        ({"instruction": "a"}, "auto", r"keys instruction are of no known format"),
        ({"data": []}, "auto", r"^no turns$"),
        ({"messages": []}, "auto", r"^no turns$"),
        ({"messages": [SYSTEM]}, "auto", r"no turns but that of the system"),
        ({"data": ["only a question"]}, "auto", r"turn 1, the last one, is a question without an answer"),
        ({"data": ["a", "b", "c"]}, "auto", r"turn 3, the last one, is a question without an answer"),
        ({"messages": [SYSTEM, MESSAGE]}, "auto", r"turn 2, the last one, is a question without an answer"),
        ({"data": ["a", 3]}, "auto", r"data\[1\] is int, expected a string"),
        ({"data": "a"}, "auto", r"data is str, expected a list"),
        ({"data": None}, "auto", r"data is missing, expected a list"),
        ({"data": ["a", "b"]}, "messages", r"messages is missing, expected a list"),
        ({"messages": ["a", "b"]}, "auto", r"messages\[0\] is str, expected an object"),
        ({"messages": [{"content": "hi"}]}, "auto", r"messages\[0\]\.role is missing, expected a string"),
        (
            {"messages": [MESSAGE, {"role": "tool", "content": "x"}]},
            "auto",
            r"messages\[1\]\.role is 'tool', expected one",
        ),
        ({"messages": [{"role": "user"}]}, "auto", r"messages\[0\]\.content is missing, expected a string"),
        ({"messages": [{"role": "user", "content": {}}]}, "auto", r"messages\[0\]\.content is dict, expected a string"),
        ({"messages": [{"role": "user", "content": []}]}, "auto", r"turn 1 is empty"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "auto",
            r"messages\[0\]\.content\[0\] is of type 'image_url', expected 'text'",
        ),
        (
            {"messages": [{"role": "user", "content": ["hi"]}]},
            "auto",
            r"content\[0\] is of type 'str', expected 'text'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "auto",
            r"content\[0\]\.text is missing, expected a string",
        ),
        ({"messages": [MESSAGE, MESSAGE]}, "auto", r"turn 2 is by 'user', expected 'assistant'"),
        ({"messages": [SYSTEM, REPLY]}, "auto", r"turn 2 is by 'assistant', expected 'user'"),
        ({"messages": [SYSTEM, SYSTEM, MESSAGE, REPLY]}, "auto", r"turn 2 is by 'system', expected 'user'"),
        ({"messages": [MESSAGE, REPLY, SYSTEM, REPLY]}, "auto", r"turn 3 is by 'system', expected 'user'"),
        ({"conversations": [{"from": "gpt", "value": "a"}] * 2}, "auto", r"turn 1 is by 'assistant', expected 'user'"),
        ({"data": ["a", " \n"]}, "auto", r"turn 2 is empty"),
        ({"data": ["", "b"]}, "auto", r"turn 1 is empty"),
        ({"messages": [{"role": "system", "content": " "}, MESSAGE, REPLY]}, "auto", r"turn 1 is empty"),
        ({"data": ["a", "b", "c\0d", "e"]}, "auto", r"turn 3 holds a NUL character"),
        ({"data": ["a smile cut in two: \ud83d", "b"]}, "auto", r"turn 1 holds half a surrogate pair"),
        ({"instruction": "a", "input": 3, "output": "b"}, "auto", r"input is int, expected a string"),
        ({"instruction": "a", "system": ["s"], "output": "b"}, "auto", r"system is list, expected a string"),
        ({"instruction": "a", "output": None}, "auto", r"output is missing, expected a string"),
        ({"output": "b"}, "alpaca", r"instruction is missing, expected a string"),
        ({"instruction": "a", "output": "b", "history": "c"}, "auto", r"history is str, expected a list"),
        ({"instruction": "a", "output": "b", "history": ["c"]}, "auto", r"history\[0\] is str, expected a list"),
        (
            {"instruction": "a", "output": "b", "history": [["c"]]},
            "auto",
            r"history\[0\] has 1 texts, expected a question",
        ),
        (
            {"instruction": "a", "output": "b", "history": [["c", 1]]},
            "auto",
            r"history\[0\]\[1\] is int, expected a str",
        ),
    ],
)
def test_what_is_no_conversation_is_refused(row, format, reason):
    with pytest.raises(RowError, match=reason):
        conversation_of(row, format)


def test_a_turn_may_be_as_long_as_the_limit_and_no_longer(monkeypatch):
    assert formats.MAX_TURN_CHARS == 1_000_000
    monkeypatch.setattr(formats, "MAX_TURN_CHARS", 10)
    assert conversation_of({"data": ["问" * 10, "b"]})
    with pytest.raises(RowError, match="turn 1 has 11 characters, at most 10 are allowed"):
        conversation_of({"data": ["a" * 11, "b"]})


def test_a_conversation_may_be_as_long_as_the_limit_and_no_longer(monkeypatch):
    assert formats.MAX_CONVERSATION_CHARS == 2_000_000
    monkeypatch.setattr(formats, "MAX_CONVERSATION_CHARS", 12)
    assert conversation_of({"data": ["问" * 3] * 4})
    with pytest.raises(RowError, match=r"^13 characters in all turns, at most 12 are allowed"):
        conversation_of({"data": ["a" * 3] * 3 + ["b" * 4]})


def test_a_conversation_may_have_so_many_turns_and_no_more():
    assert formats.MAX_TURNS == 1000
    assert len(conversation_of({"data": ["a"] * 1000})) == 1000
    with pytest.raises(RowError, match=r"^1,002 turns, at most 1,000 are allowed"):
        conversation_of({"data": ["a"] * 1002})


def test_a_reason_is_short_and_printable_whatever_the_row_holds():
    nasty = "\x1b[2J\0\ud800\n" + "x" * 10_000
    rows = [
        {nasty: 1},
        dict.fromkeys(map(str, range(1000))),
        {"messages": [{"role": nasty, "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": nasty}]}]},
        {"messages": [{"role": "user", "content": [{"type": [nasty]}]}]},
    ]
    for row in rows:
        with pytest.raises(RowError) as caught:
            conversation_of(row)
        assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_the_columns_of_a_table_are_checked_without_a_row():
    check_keys(["id", "messages"])
    check_keys(["instruction", "output", "text"], "alpaca")
    with pytest.raises(RowError, match="keys id, text are of no known format"):
        check_keys(["id", "text"])
    with pytest.raises(RowError, match="'output' is missing, which alpaca needs; the keys are instruction, text"):
        check_keys(["instruction", "text"], "alpaca")


def test_half_a_surrogate_pair_is_no_unicode():
    assert is_unicode("😀问a") and not is_unicode("\ud83d")
