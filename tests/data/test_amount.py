"""The amount of work told before preprocessing is that which preprocessing finds: exactly where all rows were read,
closely where they were not.
"""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from hpcsft.data.amount import estimate_workload
from hpcsft.data.preprocess import preprocess
from hpcsft.errors import InputError
from hpcsft.estimate.work import exact_workload
from hpcsft.records import read_json
from hpcsft.spec import parse_spec
from tests.prepared import begun, new_run


def found_by_preprocessing(values):
    run = new_run(values)
    preprocess(begun(run, "preprocess"))
    return exact_workload(read_json(run.audit), parse_spec(values))


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("sample", [None, 50, 0.5])
def test_all_rows_read_give_what_preprocessing_finds(packing, sample, spec_values):
    spec_values["data"].update(packing=packing, sample=sample)
    told, found = estimate_workload(parse_spec(spec_values)), found_by_preprocessing(spec_values)
    assert (told.exact, found.exact) == (False, True)
    share = 0.03 if sample is None else 0.25  # of few rows, which ones are drawn matters
    for split in ("train", "validation"):
        for name, value in getattr(found, split).model_dump().items():
            widest = share if split == "train" else 0.5
            assert getattr(getattr(told, split), name) == pytest.approx(value, rel=widest + 0.05), (split, name)
    assert told.micro_batches == pytest.approx(found.micro_batches, rel=share)
    assert abs(told.steps_per_epoch - found.steps_per_epoch) <= max(1, round(share * found.steps_per_epoch))


def test_validation_files_are_looked_at_themselves(spec_values):
    spec_values["data"]["validation"] = spec_values["data"]["train"]
    told = estimate_workload(parse_spec(spec_values))
    assert told.validation == told.train


def many(conversations, path, number=3000):
    """Rows of all conversations in turn, as they are found in an ordinary file: no order."""
    rows = [json.dumps({"data": conversations[i * 7 % len(conversations)]}).encode() for i in range(number)]
    return rows, str(path)


def write_lines(conversations, path):
    rows, name = many(conversations, path)
    path.write_bytes(b"\n".join(rows) + b"\n")
    return name


def write_gzip(conversations, path):
    rows, name = many(conversations, path)
    path.write_bytes(gzip.compress(b"\n".join(rows) + b"\n"))
    return name


def write_parquet(conversations, path):
    rows, name = many(conversations, path)
    pyarrow.parquet.write_table(pa.Table.from_pylist([json.loads(row) for row in rows]), path)
    return name


@pytest.mark.parametrize(
    ("name", "write", "within"),
    [("d.jsonl", write_lines, 0.1), ("d.jsonl.gz", write_gzip, 0.6), ("d.parquet", write_parquet, 0.05)],
)
def test_the_first_rows_stand_for_the_others(name, write, within, spec_values, conversations, tmp_path):
    """Sizes of compressed files tell least: equal rows far apart compress well."""
    spec_values["data"].update(train=[write(conversations, tmp_path / name)], validation=0)
    told = estimate_workload(parse_spec(spec_values), 400)
    found = found_by_preprocessing(spec_values)
    assert "first 400 of about" in told.basis
    assert told.train.tokens == pytest.approx(found.train.tokens, rel=within)
    assert told.steps_per_epoch == pytest.approx(found.steps_per_epoch, rel=within + 0.02)


def test_data_without_a_training_row_is_refused(spec_values):
    spec_values["data"]["filter"] = {"min_turns": 999}
    with pytest.raises(InputError, match=r"^data\.train: no training row is left of the first 120 rows$") as caught:
        estimate_workload(parse_spec(spec_values))
    assert "hpcsft preview" in (caught.value.hint or "")


def test_a_template_that_does_not_suit_the_model_is_refused(spec_values):
    spec_values["data"]["template"] = "tokenizer"
    with pytest.raises(InputError):
        estimate_workload(parse_spec(spec_values))
