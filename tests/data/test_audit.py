"""Guards that the audit tells the truth about the shards: figures of exactly the training rows, every bad row counted,
rows drawn from all of them, and all of it the same however the rows came into files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpcsft.data.audit import SAMPLED_ROWS, SHOWN_BAD_ROWS, audit, summary
from hpcsft.data.quarantine import BadRow, write_bad_rows
from hpcsft.data.shards import Manifest
from hpcsft.data.splits import held_out
from hpcsft.spec import parse_spec
from tests.data.rows import Row, encoded, made_rows, write_shards
from tests.data.tokenizers import train_tokenizer

BELOW = 2**62
"""A quarter of the conversations is held out."""


@pytest.fixture(scope="module")
def tokenizer(conversations):
    return train_tokenizer("byte-level", (text for turns in conversations for text in turns))


def spec_of(seed: int = 0):
    return parse_spec({"model": {"path": "/m"}, "data": {"train": ["/d"], "max_length": 64}, "seed": seed})


def written(folder: Path, rows: Sequence[Row], per_shard: int, **counts: int) -> tuple[Manifest, Path]:
    folder.mkdir()
    return write_shards(folder, rows, per_shard, below=BELOW).model_copy(update={"counts": counts}), folder


def bad_rows(count: int) -> list[BadRow]:
    return [BadRow(file="/d/a.jsonl", row=row, reason=f"turn {row} is empty", excerpt="{}") for row in range(count)]


def test_figures_are_of_the_training_rows(tmp_path, tokenizer):
    rows = made_rows(80)
    manifest, folder = written(tmp_path / "a", rows, 9)
    below = held_out("train", encoded(rows).key, manifest.seed, BELOW)
    mine = [row for row, out in zip(rows, below, strict=True) if not out]
    assert 40 < len(mine) < 80
    document = audit(manifest, folder, spec_of(), tokenizer)
    train = document["train"]
    assert train["rows"] == document["splits"]["train"]["rows"] == len(mine)
    assert train["tokens"] == document["splits"]["train"]["tokens"] == sum(len(row.input_ids) for row in mine)
    assert train["supervised_tokens"] == sum(row.num_supervised for row in mine)
    assert document["splits"]["validation"]["rows"] == 80 - len(mine)
    assert document["fate"]["tokens_in_rows"] == sum(len(row.input_ids) for row in rows)
    reader = tokenizer.backend_tokenizer
    for sample in document["samples"]:
        row = mine[sample["row"] - 1]
        assert sample["tokens"] == len(row.input_ids)
        text = "".join(run["text"] for run in sample["runs"])
        assert text == reader.decode(row.input_ids, skip_special_tokens=False)


def test_it_does_not_depend_on_the_files_that_hold_the_rows(tmp_path, tokenizer):
    rows = made_rows(60)
    one = audit(*written(tmp_path / "one", rows, 100), spec_of(), tokenizer)
    many = audit(*written(tmp_path / "many", rows, 7), spec_of(), tokenizer)
    assert one == many
    assert json.loads(json.dumps(one, allow_nan=False)) == one


def test_rows_to_read_are_drawn_from_all_of_them(tmp_path, tokenizer):
    manifest, folder = written(tmp_path / "a", made_rows(200), 50)
    drawn = [
        [sample["row"] for sample in audit(manifest, folder, spec_of(seed), tokenizer)["samples"]] for seed in (1, 2, 1)
    ]
    assert drawn[0] == drawn[2] != drawn[1]
    for places in drawn:
        assert len(set(places)) == SAMPLED_ROWS and places == sorted(places)
        assert places[-1] > 75 and places != list(range(1, SAMPLED_ROWS + 1))


def test_few_rows_are_all_shown(tmp_path, tokenizer):
    manifest, folder = written(tmp_path / "a", made_rows(4), 50)
    document = audit(manifest, folder, spec_of(), tokenizer)
    assert [sample["row"] for sample in document["samples"]] == list(range(1, document["train"]["rows"] + 1))


def test_the_quarantine_is_counted_and_its_first_rows_are_told(tmp_path, tokenizer):
    manifest, folder = written(tmp_path / "a", made_rows(20), 50)
    bad = bad_rows(25)
    write_bad_rows(folder / "quarantine.jsonl", bad)
    quarantine = audit(manifest, folder, spec_of(), tokenizer)["quarantine"]
    assert quarantine["reasons"] == [{"reason": "turn N is empty", "rows": 25}]
    assert quarantine["first"] == [row.model_dump() for row in bad[:SHOWN_BAD_ROWS]]


def test_the_log_is_told_what_was_lost(tmp_path):
    manifest, _ = written(tmp_path / "a", made_rows(40), 50, conversations_dropped=3, conversations_quarantined=2)
    train, out = manifest.splits["train"], manifest.splits["validation"]
    percent = f"{100 * train.supervised_tokens / train.tokens:.0f}"
    told = f"{train.rows} training rows, {train.tokens} tokens ({percent}% supervised); {out.rows} validation rows"
    assert summary(manifest) == f"{told}; 3 conversations dropped; 2 conversations quarantined"
    assert summary(manifest.model_copy(update={"counts": {"conversations_dropped": 0}})) == told
