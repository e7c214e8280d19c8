"""What preprocessing would make of the first rows of the data, before anything is submitted. Nothing is written."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from hpcsft.data.audit import SHOWN_BAD_ROWS, read_row
from hpcsft.data.figures import fate, group_reasons, row_figures
from hpcsft.data.formats import RowError, detect_format
from hpcsft.data.making import Made, RowMaker
from hpcsft.data.readable import RunReader
from hpcsft.data.readers import RawRow, find_files, read_rows
from hpcsft.errors import InputError, StageError
from hpcsft.spec import ExperimentSpec


def preview(spec: ExperimentSpec, num_shown: int, num_read: int) -> dict[str, Any]:
    """The first rows of each source as training would see them: at most `num_read` read, `num_shown` to read.

    The same figures as in an audit, for every source by itself; `data.sample` and a share for validation are not drawn.
    Raises InputError if model or data cannot be used, or if there is not a single row in a source.
    """
    try:
        maker = RowMaker.of(spec)
    except StageError as error:
        raise InputError(error.message, error.hint) from None
    patterns = {"train": spec.data.train}
    if isinstance(spec.data.validation, list):
        patterns["validation"] = spec.data.validation
    files = {name: find_files(wanted, f"data.{name}") for name, wanted in patterns.items()}
    rules = spec.data.model_dump(mode="json", include={"format", "template", "mask", "max_length", "overlong"})
    return {
        "model": spec.model.path,
        **rules,
        "not_applied": _not_applied(spec),
        "sources": [_look(maker, spec, name, files[name], num_shown, num_read) for name in files],
    }


def _not_applied(spec: ExperimentSpec) -> list[str]:
    """Fields that choose among all rows of data.train, which a look at the first ones cannot do."""
    share = isinstance(spec.data.validation, float) and spec.data.validation > 0
    chosen = {"data.sample": spec.data.sample is not None, "data.validation": share}
    return [name for name, is_set in chosen.items() if is_set]


def _look(
    maker: RowMaker, spec: ExperimentSpec, name: str, files: list[str], num_shown: int, num_read: int
) -> dict[str, Any]:
    first = list(first_rows(files, num_read))
    if not first:
        raise InputError(f"data.{name}: not a single row in {files[0]}", "expected one conversation per row")
    made = list(maker.make(enumerate(first)))
    counts: Counter[str] = sum((part.counts for part in made), Counter())
    bad_rows = [bad for part in made for bad in part.bad_rows]
    counts["conversations_quarantined"] = len(bad_rows)
    spans = [(part, start, end) for part in made for start, end in itertools.pairwise(part.rows.offsets.tolist())]
    figures = row_figures(
        np.array([end - start for _, start, end in spans], dtype=np.int64),
        np.concatenate([part.rows.num_supervised for part in made]),
        spec,
    )
    reader = RunReader(maker.tokenizer)
    return {
        "source": name,
        "files": files,
        "formats": _formats(first, spec.data.format, len(bad_rows)),
        **figures,
        "fate": fate(counts, figures["tokens"]),
        "too_many_bad_rows": len(bad_rows) > spec.data.max_bad_share * len(first),
        "quarantine": {
            "reasons": group_reasons(bad.reason for bad in bad_rows),
            "first": [bad.model_dump() for bad in bad_rows[:SHOWN_BAD_ROWS]],
        },
        "samples": [_sample(reader, first, number, *spans[number]) for number in _spread(len(spans), num_shown)],
    }


def first_rows(files: list[str], most: int) -> Iterator[RawRow]:
    """At most `most` rows, as many of each file, so that each is looked at."""
    of_each = -(-most // len(files))
    rows = itertools.chain.from_iterable(itertools.islice(read_rows([file]), of_each) for file in files)
    return itertools.islice(rows, most)


def _formats(rows: list[RawRow], format: str, num_bad: int) -> dict[str, int]:
    """How many rows are of which format."""
    if format != "auto":
        return {format: len(rows) - num_bad}
    found: Counter[str] = Counter()
    for row in rows:
        try:
            parsed = row.parse()
            found.update([detect_format(parsed)] if isinstance(parsed, dict) else [])
        except RowError:
            continue
    return dict(found.most_common())


def _spread(num_rows: int, wanted: int) -> list[int]:
    """`wanted` rows, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, num_rows - 1, min(wanted, num_rows)).tolist()})


def _sample(reader: RunReader, first: list[RawRow], number: int, part: Made, start: int, end: int) -> dict[str, Any]:
    rows = part.rows
    of = first[int(rows.conversation[np.searchsorted(rows.offsets, start, side="right") - 1])]
    place = {"row": number + 1, "file": of.file, "file_row": of.number}
    return {**place, **read_row(reader, rows.input_ids[start:end], rows.labels[start:end])}
