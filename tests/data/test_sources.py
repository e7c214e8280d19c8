"""Guards that a sample is as large as asked and drawn by the seed alone, that every row is read once whichever shard
asks for it, and that files are looked through once.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from hpcsft.data import sources
from hpcsft.data.sources import Draw, Source, find_sources
from hpcsft.errors import InputError
from hpcsft.spec import parse_spec


@pytest.fixture(autouse=True)
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(sources, "ROWS_PER_SHARD", 7)


def write_rows(path: Path, numbers: range) -> str:
    text = "".join(json.dumps({"data": [f"q{number}", f"a{number}"]}) + "\n" for number in numbers)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.fixture
def files(tmp_path) -> list[str]:
    """60 rows in four files of different kinds, one of them without a row."""
    rows = [{"data": [f"q{number}", f"a{number}"]} for number in range(31, 50)]
    (tmp_path / "b.json").write_text(json.dumps(rows))
    (tmp_path / "c.jsonl").write_text("\n\n")
    return [
        write_rows(tmp_path / "a.jsonl", range(31)),
        str(tmp_path / "b.json"),
        str(tmp_path / "c.jsonl"),
        write_rows(tmp_path / "d.jsonl.gz", range(50, 60)),
    ]


def found(files: list[str], folder: Path | None = None, seed: int = 1, rules: Any = (), **data: Any) -> list[Source]:
    spec = parse_spec({"model": {"path": "m"}, "seed": seed, "data": {"train": files, **data}})
    return find_sources(spec, rules, folder)


def numbers_of(source: Source) -> list[int]:
    numbers = []
    for shard in range(source.num_shards):
        for number, row in source.rows(shard):
            assert row.parse()["data"] == [f"q{number}", f"a{number}"]
            assert shard * 7 <= number < (shard + 1) * 7
            numbers.append(number)
    return numbers


def test_shards_hold_every_row_once_in_the_order_of_the_files(files):
    (source,) = found(files)
    assert (source.total, source.num_shards) == (60, 9)
    assert numbers_of(source) == list(range(60))


@pytest.mark.parametrize(("sample", "expected"), [(25, 25), (1, 1), (1.0, 60), (0.25, 15), (500, 60), (0.0001, 1)])
def test_a_sample_is_as_large_as_asked(files, sample, expected):
    (source,) = found(files, sample=sample)
    drawn = numbers_of(source)
    assert len(drawn) == len(set(drawn)) == expected


def test_the_seed_decides_who_is_drawn(files):
    drawn = [frozenset(numbers_of(found(files, seed=seed, sample=30)[0])) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3


def test_a_sample_spreads_over_the_whole_file():
    """Not the first rows: data sets are sorted by topic more often than not."""
    drawn = Draw.of(0.1, 100_000, 5)
    counts = [len(drawn.among(range(start, start + 10_000))) for start in range(0, 100_000, 10_000)]
    assert sum(counts) == 10_000 and min(counts) > 850 and max(counts) < 1150


def test_only_the_training_files_are_sampled(files, tmp_path):
    held_out = write_rows(tmp_path / "v.jsonl", range(20))
    train, validation = found(files, sample=10, validation=[held_out])
    assert (train.name, validation.name) == ("train", "validation")
    assert len(numbers_of(train)) == 10 and numbers_of(validation) == list(range(20))


def test_files_are_looked_through_once(files, tmp_path, monkeypatch):
    (first,) = found(files, tmp_path / "index")
    monkeypatch.setattr(sources, "index_file", None)
    (again,) = found(files, tmp_path / "index")
    assert again == first and numbers_of(again) == list(range(60))
    with open(files[0], "a") as file:
        file.write('{"data": ["q", "a"]}\n')
    with pytest.raises(TypeError):
        found(files, tmp_path / "index")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"file": "a", "rows": 3, "marks": [[1]]}'])
def test_a_damaged_index_is_made_again(files, tmp_path, text):
    (first,) = found(files, tmp_path / "index")
    for file in (tmp_path / "index").iterdir():
        file.write_text(text)
    assert found(files, tmp_path / "index") == [first]


def test_a_folder_that_cannot_be_written_is_done_without(files, tmp_path):
    (tmp_path / "file").touch()
    assert numbers_of(found(files, tmp_path / "file" / "index")[0]) == list(range(60))


@pytest.mark.parametrize("number", [20, 31, 40])
def test_a_file_that_changes_while_it_is_read_is_told(files, number):
    (source,) = found(files)
    write_rows(Path(files[0]), range(number))
    os.utime(files[0], ns=(0, 0))
    with pytest.raises(InputError, match=r"a\.jsonl: changed while it was read"):
        numbers_of(source)


def test_a_shard_looks_again_at_its_own_files_only(files, monkeypatch):
    """On a shared filesystem a look costs a millisecond, and there may be thousands of files."""
    (source,) = found(files)
    looked: list[str] = []
    monkeypatch.setattr(sources, "state_of", lambda file: looked.append(file) or source.states[file])
    for shard, expected in ((0, files[:1]), (4, files[:2]), (5, files[1:2]), (7, [files[1], files[3]])):
        looked.clear()
        list(source.rows(shard))
        assert looked == expected


def test_the_fingerprint_tells_what_decides_the_rows(files, tmp_path):
    def fingerprint(files: list[str] = files, **changes: Any) -> str:
        return found(files, **changes)[0].fingerprint

    same = [fingerprint(), fingerprint(seed=2), fingerprint(validation=0.5), fingerprint(packing=False)]
    assert len(set(same)) == 1
    filtered = fingerprint(filter={"min_turns": 2})
    others = [filtered, fingerprint(mask="last_turn"), fingerprint(max_length=65), fingerprint(format="ultrachat")]
    others += [fingerprint(sample=9), fingerprint(sample=9, seed=2), fingerprint(overlong="drop")]
    others += [fingerprint(rules=["other tokenizer"]), fingerprint(files[:3]), fingerprint(template="chatml")]
    write_rows(tmp_path / "a.jsonl", range(1, 32))
    others.append(fingerprint())
    assert len({*same, *others}) == len(others) + 1


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"data\.validation: no such file: .*none\.jsonl"):
        found([write_rows(tmp_path / "a.jsonl", range(3))], validation=[str(tmp_path / "none.jsonl")])
