"""Training rows of real conversations, written to shards and opened as training opens them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcsft.data.batches import RowStore
from hpcsft.data.encode import Row, RowMaker, TurnEncoder
from hpcsft.data.shards import Manifest, Shard, write_rows
from hpcsft.data.templates import SpecialTokens, make_template
from hpcsft.models.load import load_tokenizer
from hpcsft.spec.data import DataSpec
from tests.data.reference import turns_of


def rows_of(model: Path, dialogs: Sequence[list[str]], max_length: int = 100_000) -> list[Row]:
    """The training rows of `dialogs`."""
    tokenizer = load_tokenizer(str(model))
    template = make_template("user_assistant", SpecialTokens.of(tokenizer))
    made = RowMaker(DataSpec(train=["x"], max_length=max_length), TurnEncoder(tokenizer, template))
    return list(made.rows(range(len(dialogs)), [turns_of(texts) for texts in dialogs]))


def write_shards(folder: Path, rows: Sequence[Row], per_shard: int, split: str = "train") -> Manifest:
    """`rows` in several Arrow files, and their manifest."""
    shards = []
    for start in range(0, len(rows), per_shard):
        file = write_rows(folder / f"train-{start:05d}.{split}.arrow", split, rows[start : start + per_shard])
        shards.append(Shard(files=[file], counts={}, bad_rows=[]))
    return Manifest(fingerprint="", shards=shards, counts={})


def open_rows(folder: Path, rows: Sequence[Row], per_shard: int = 7) -> RowStore:
    """`rows` written to `folder` and opened again."""
    return RowStore(folder, write_shards(folder, rows, per_shard), "train")
