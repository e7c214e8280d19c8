"""The `data` section: what it learns from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpcsft.spec.base import Path, Section


class DataSpec(Section):
    """Multi-turn conversations and how they become supervised tokens."""

    train: Annotated[list[Path], Field(min_length=1)]
    """Files or globs with the training conversations: .jsonl, .json (an array), .parquet; .jsonl.gz and .json.gz."""

    validation: Annotated[float, Field(ge=0, lt=1)] | Annotated[list[Path], Field(min_length=1)] = 0.01
    """Share of the training conversations held out for the validation loss (0 for none), or files of their own."""

    format: Literal["auto", "ultrachat", "messages", "sharegpt", "alpaca"] = "auto"
    """Shape of a row; auto looks at the keys of each row."""

    sample: Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0, le=1)] | None = None
    """Use only so many conversations (a whole number) or such a share of them (a fraction), drawn with the seed."""

    template: Literal["user_assistant", "chatml"] = "user_assistant"
    """How turns become text: `<bos>User: ...<eos>\\nAssistant: ...<eos>`, or ChatML."""

    mask: Literal["all_turns", "last_turn", "per_turn"] = "all_turns"
    """Where the loss is: on every assistant turn, on the last one only, or one row for each assistant turn."""

    max_length: Annotated[int, Field(ge=16)] = 1024
    """Longest training row, in tokens."""

    overlong: Literal["split", "drop", "truncate"] = "split"
    """A conversation over max_length: split it between exchanges, drop it, or cut it off at max_length."""

    packing: bool = True
    """Fill each micro batch of micro_batch_size x max_length positions with as many whole rows as fit; rows do not
    see each other. Without it a micro batch is exactly micro_batch_size rows."""
