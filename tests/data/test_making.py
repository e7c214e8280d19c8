"""Guards that no input is lost or ends in a traceback: of a thousand damaged files every row is kept, dropped or
quarantined, and what is kept obeys the rules of rows.
"""

from __future__ import annotations

import gc
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from hpcsft.data import making
from hpcsft.data.making import RowMaker
from hpcsft.data.readers import index_file, read_file
from hpcsft.data.shards import IGNORE_INDEX
from hpcsft.errors import InputError, StageError
from hpcsft.spec import parse_spec
from tests.data.made_files import FILES, packed, write
from tests.data.test_reading_fuzz import damaged
from tests.data.tokenizers import CHAT_TEMPLATES

ODD = [
    None,
    1,
    1.5,
    True,
    "",
    " \n",
    "\0",
    "x" * 3000,
    [],
    {},
    ["a"],
    {"a": 1},
    "</s>",
    "<|im_end|>\n<|im_start|>user",
    "\ud800",
]
"""Values that stand where a text, a role or a list should."""

RULES = [
    {"max_length": 64},
    {"max_length": 48, "mask": "per_turn", "template": "chatml"},
    {"max_length": 40, "mask": "last_turn", "overlong": "truncate"},
    {"max_length": 64, "overlong": "split_reference"},
    {"max_length": 100, "overlong": "drop", "template": "own.jinja", "filter": {"min_turns": 4, "max_tokens": 90}},
    {"max_length": 32, "template": "own.jinja", "mask": "per_turn"},
]


@pytest.fixture(scope="module")
def makers(tiny_model, tmp_path_factory) -> list[RowMaker]:
    jinja = tmp_path_factory.mktemp("templates") / "own.jinja"
    jinja.write_text(CHAT_TEMPLATES["llama 2"])
    model = {"path": str(tiny_model)}
    rules = [{**rule, "template": str(jinja)} if rule.get("template") == "own.jinja" else rule for rule in RULES]
    return [RowMaker.of(parse_spec({"model": model, "data": {"train": ["x"], **rule}})) for rule in rules]


def shaped(texts: list[str], dice: random.Random) -> dict[str, Any]:
    """A conversation in one of the four formats."""
    turns = list(zip(["user", "assistant"] * len(texts), texts, strict=False))
    kind = dice.randrange(4)
    if kind == 0:
        return {"id": "1", "data": texts}
    if kind == 1:
        system = [{"role": "system", "content": "Be brief."}] if dice.random() < 0.3 else []
        return {"messages": system + [{"role": role, "content": text} for role, text in turns]}
    if kind == 2:
        names = {"user": "human", "assistant": "gpt"}
        return {"conversations": [{"from": names[role], "value": text} for role, text in turns]}
    return {"instruction": texts[0], "input": dice.choice(["", "more"]), "output": texts[1]}


def spoilt(value: Any, dice: random.Random) -> Any:
    """`value` with something odd somewhere in it, or nothing."""
    if dice.random() < 0.12:
        return dice.choice(ODD)
    if isinstance(value, list):
        items = [spoilt(item, dice) for item in value]
        return items[: dice.randrange(len(items) + 1)] if items and dice.random() < 0.15 else items
    if isinstance(value, dict):
        return {
            dice.choice(["role", "x", key]) if dice.random() < 0.05 else key: spoilt(v, dice)
            for key, v in value.items()
        }
    return value


def account(maker: RowMaker, file: str) -> Counter[str]:
    """Make the rows of `file` and check them; how many rows of the file were kept, dropped and quarantined."""
    found: Counter[str] = Counter()
    for made in maker.make(enumerate(read_file(file))):
        assert made.rows.offsets[-1] == len(made.rows.input_ids) == len(made.rows.labels)
        lengths = made.rows.offsets[1:] - made.rows.offsets[:-1]
        assert (lengths <= maker.data.max_length).all() and (made.rows.num_supervised > 0).all()
        learnt = made.rows.labels != IGNORE_INDEX
        assert (made.rows.labels[learnt] == made.rows.input_ids[learnt]).all()
        found += made.counts
        found["quarantined"] += len(made.bad_rows)
        assert all(bad.reason and bad.file == file for bad in made.bad_rows)
        json.dumps([bad.model_dump() for bad in made.bad_rows], ensure_ascii=False).encode()
        assert len(set(made.rows.conversation.tolist())) == made.counts["conversations_kept"]
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_row_of_damaged_files_is_accounted_for(makers, conversations, tmp_path, name):
    dice = random.Random(name)
    fates: Counter[str] = Counter()
    for case in range(143):  # of 7 kinds: 1,001
        rows = []
        for _ in range(dice.randrange(1, 25)):
            texts = [text for texts in dice.sample(conversations, dice.randrange(1, 4)) for text in texts]
            row = shaped(texts, dice)
            rows.append(spoilt(row, dice) if case % 2 and not name.endswith("parquet") else row)
        path = tmp_path / name
        if name.endswith("parquet"):
            rows = [row for row in rows if row.keys() == rows[0].keys()]
            write(path, rows)
            if case % 2:
                path.write_bytes(damaged(path.read_bytes(), dice))
        else:
            lines = [json.dumps(row) for row in rows]
            text = "\n".join(lines) if "jsonl" in name else f"[{', '.join(lines)}]"
            data = text.encode() if case % 2 else damaged(text.encode(), dice)
            path.write_bytes(packed(name, data) if case % 3 else damaged(packed(name, data), dice))
        try:
            total = index_file(str(path), 5).rows
            found = account(makers[case % len(makers)], str(path))
        except InputError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            fates["refused"] += 1
            continue
        read = found["conversations_read"]
        assert read == total == found["conversations_kept"] + found["conversations_dropped"] + found["quarantined"]
        assert found["conversations_dropped"] == sum(n for key, n in found.items() if key.startswith("dropped_"))
        fates += found
    assert min(fates[fate] for fate in ("conversations_kept", "conversations_dropped", "quarantined")) > 20


def test_rows_come_in_the_order_of_the_file_however_they_are_chunked(makers, conversations, monkeypatch):
    rows = [{"data": conversations[number % 300]} for number in range(600)]
    rows[::50] = [{"data": ["odd"]}] * 12

    def made(chunk: int) -> tuple[list[int], list[int]]:
        monkeypatch.setattr(making, "CHUNK_CONVERSATIONS", chunk)
        parts = list(makers[0].make(enumerate(raw_rows(rows))))
        numbers = [number for part in parts for number in part.rows.conversation.tolist()]
        return [bad.row for part in parts for bad in part.bad_rows], numbers

    whole = made(10_000)
    assert whole[0] == list(range(1, 600, 50)) and whole[1] == sorted(whole[1])
    assert made(7) == made(64) == whole


def raw_rows(rows: list[dict]) -> Iterator[making.RawRow]:
    return (making.RawRow("f", number, row) for number, row in enumerate(rows, 1))


def test_a_consumer_that_stops_leaves_no_thread_and_no_setting_behind(makers, conversations, monkeypatch):
    monkeypatch.setattr(making, "CHUNK_CONVERSATIONS", 3)
    before = gc.get_threshold(), gc.get_freeze_count(), set(threading.enumerate())
    rows = makers[0].make(enumerate(raw_rows([{"data": texts} for texts in conversations[:60]])))
    next(rows)
    rows.close()
    assert (gc.get_threshold(), gc.get_freeze_count(), set(threading.enumerate())) == before


def test_an_error_while_encoding_is_not_swallowed(makers, conversations, monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError("of the machine")

    monkeypatch.setattr(making.ConversationEncoder, "encode", fail)
    with pytest.raises(MemoryError, match="of the machine"):
        list(makers[0].make(enumerate(raw_rows([{"data": conversations[0]}]))))


def test_a_template_that_the_tokenizer_cannot_serve_is_told(tiny_model):
    with pytest.raises(StageError, match=r"data\.template: .*chat template"):
        RowMaker.of(parse_spec({"model": {"path": str(tiny_model)}, "data": {"train": ["x"], "template": "tokenizer"}}))


@pytest.mark.parametrize("bound", ["CHUNK_CONVERSATIONS", "CHUNK_CHARACTERS", "CHUNK_PREFIXES"])
def test_a_chunk_is_bounded_in_every_way_that_costs_memory(makers, conversations, monkeypatch, bound):
    rows = [{"data": conversations[number] * 3} for number in range(30)]
    assert len(list(makers[0].make(enumerate(raw_rows(rows))))) == 1
    monkeypatch.setattr(making, bound, 1)
    assert len(list(makers[0].make(enumerate(raw_rows(rows))))) == 30
