"""The `data` section: what it learns from."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from hpcsft.errors import InputError
from hpcsft.hub.names import DataName, is_hub_name
from hpcsft.spec.base import Path, Section

TemplateName = Literal["user_assistant", "tokenizer", "chatml"]

TEMPLATES = get_args(TemplateName)
"""Templates by name; any other is a Jinja file."""

JINJA_ENDINGS = (".jinja", ".jinja2", ".j2")


def _jinja_file(value: str) -> str:
    if not value.endswith(JINJA_ENDINGS):
        raise ValueError(f"a Jinja file ending in {', '.join(JINJA_ENDINGS)}")
    return value


def _hub_name_or_path(value: str) -> str:
    if is_hub_name(value):
        try:
            DataName.parse(value)
        except InputError as error:
            raise ValueError(f"a data set on the hub is {error.hint}") from None
    return value


Source = Annotated[Path, AfterValidator(_hub_name_or_path)]
"""Where conversations are."""


class FilterSpec(Section):
    """Which conversations are used at all. Turns are those of user and assistant together."""

    min_turns: PositiveInt | None = None
    """Fewest turns of a conversation."""

    max_turns: PositiveInt | None = None
    """Most turns of a conversation."""

    min_tokens: PositiveInt | None = None
    """Fewest tokens of a whole conversation, before it is cut."""

    max_tokens: PositiveInt | None = None
    """Most tokens of a whole conversation, before it is cut."""

    @model_validator(mode="after")
    def _in_order(self) -> FilterSpec:
        for least, most in (("min_turns", "max_turns"), ("min_tokens", "max_tokens")):
            low, high = getattr(self, least), getattr(self, most)
            if low is not None and high is not None and low > high:
                raise ValueError(f"{least} {low} is more than {most} {high}: no conversation would be left")
        return self


class DataSpec(Section):
    """Multi-turn conversations and how they become supervised tokens."""

    train: Annotated[list[Source], Field(min_length=1)]
    """Where the training conversations are: files or globs (.jsonl, .json with an array, both also .gz and .zst,
    .parquet), folders of such files, folders written by datasets' save_to_disk, or data sets of the Hugging Face hub
    as hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]."""

    validation: Annotated[float, Field(ge=0, lt=1)] | Annotated[list[Source], Field(min_length=1)] = 0.01
    """Share of the training conversations held out for the validation loss (0 for none), or files of their own.
    Equal conversations are never on both sides."""

    format: Literal["auto", "ultrachat", "messages", "sharegpt", "alpaca"] = "auto"
    """Shape of a row; auto looks at the keys of each row."""

    sample: Annotated[int, Field(gt=0, strict=True)] | Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    """Use only so many rows (a whole number) or such a share of them (a fraction), drawn with the seed."""

    filter: FilterSpec = FilterSpec()
    """Which conversations are used at all."""

    template: TemplateName | Annotated[Path, AfterValidator(_jinja_file)] = "user_assistant"
    """How turns become text: `<bos>User: ...<eos>\\nAssistant: ...<eos>` (user_assistant), the model's own chat
    template (tokenizer), ChatML (chatml), or a Jinja file of your own (.jinja)."""

    mask: Literal["all_turns", "last_turn", "per_turn"] = "all_turns"
    """Where the loss is: on every assistant turn, on the last one only, or one row for each assistant turn."""

    max_length: Annotated[int, Field(ge=16)] = 1024
    """Longest training row, in tokens."""

    overlong: Literal["split", "drop", "truncate", "split_reference"] = "split"
    """A conversation over max_length: split it between exchanges, drop it, or cut it off at max_length.
    split_reference repeats the reference project's splitter, which loses the last exchange wherever that makes the
    cut; it is there for a faithful reproduction only."""

    packing: bool = True
    """Fill each micro batch of micro_batch_size x max_length positions with as many whole rows as fit; rows do not
    see each other. Without it a micro batch is exactly micro_batch_size rows."""

    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Stop when more than this share of the rows are no conversations. They stand in data/quarantine.jsonl."""

    cache: bool = True
    """Share what preprocessing made with every run of the same data, tokenizer, template and mask, in
    RUNS_DIR/.cache, which may be removed at any time."""
