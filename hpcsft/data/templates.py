"""How turns become pieces of text, and which of them carry loss. Light: Jinja is loaded where it is asked for.

A piece is either text, tokenized by itself with special tokens spelled out as data, or one special token by its id.
Boundaries between what the model reads and what it learns are therefore exact by construction, and what generation
gives (`prefix`) is piece for piece what training saw before the answer.

user_assistant is the format of the work that hpcsft reproduces, after Firefly's multi-turn training. Each of its texts
is tokenized as if it stood alone, so none is `inner`:

    <bos>User: question<eos>\\nAssistant: answer<eos>\\nUser: question<eos>\\nAssistant: answer<eos>
                                          ^^^^^^^^^^^ loss                           ^^^^^^^^^^^ loss

chatml is tokenized as one text, as the servers of such models do: what follows a special token goes on from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcsft.data.formats import Conversation, Turn
from hpcsft.data.pieces import Piece, Template
from hpcsft.data.special_tokens import goes_on_after
from hpcsft.errors import StageError

__all__ = ["BUILT_IN", "Piece", "Template", "make_template"]


@dataclass(frozen=True)
class TurnTemplate:
    """A template that renders every turn by itself."""

    name: str
    end: int
    header: tuple[Piece, ...]
    """What stands before every answer."""
    turn: Callable[[int, Turn], list[Piece]]
    """(number, turn) -> its pieces; an answer's without the header."""
    source: None = None

    def pieces(self, turns: Conversation) -> list[Piece]:
        """All pieces of `turns`, which these templates never refuse."""
        pieces: list[Piece] = []
        for number, turn in enumerate(turns):
            if turn.role == "assistant":
                pieces += self.header
            pieces += self.turn(number, turn)
        return pieces

    def prefix(self, turns: Conversation) -> list[Piece]:
        """All that precedes the next answer."""
        return [*self.pieces(turns), *self.header]

    def check(self, mask: str) -> None:
        """Every mask can be served: no turn depends on a later one."""


def make_template(name: str | Path, tokenizer: Any, source: str | None = None) -> Template:
    """The template that `data.template` calls `name`, for a fast tokenizer.

    `name` is user_assistant, chatml, tokenizer (its own chat template) or the path of a Jinja file. With `source`, the
    Jinja text of an earlier stage's template, neither file nor tokenizer is asked for theirs. StageError if the
    tokenizer lacks what the template needs, or the Jinja text cannot be used.
    """
    name = str(name)
    if name in BUILT_IN:
        return BUILT_IN[name](tokenizer)
    from hpcsft.data.jinja_template import JinjaTemplate, find_source

    return JinjaTemplate(name, tokenizer, source if source is not None else find_source(name, tokenizer))


def _user_assistant(tokenizer: Any) -> TurnTemplate:
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if eos is None:
        raise StageError("data.template: the tokenizer has no end-of-sequence token, which every turn ends with")
    start = [Piece(bos)] if bos is not None else []

    def turn(number: int, turn: Turn) -> list[Piece]:
        if turn.role == "assistant":
            return [Piece(turn.text, number), Piece(eos, number)]
        text = f"{turn.role.capitalize()}: {turn.text}"
        return [Piece(f"\n{text}"), Piece(eos)] if number else [*start, Piece(text), Piece(eos)]

    return TurnTemplate("user_assistant", eos, (Piece("\nAssistant: "),), turn)


def _chatml(tokenizer: Any) -> TurnTemplate:
    added = tokenizer.get_added_vocab()
    start, end = added.get("<|im_start|>"), added.get("<|im_end|>")
    if start is None or end is None:
        hint = "use the template user_assistant, which needs only an end-of-sequence token"
        raise StageError("data.template: chatml needs the tokens <|im_start|> and <|im_end|>, the model has none", hint)
    inner = goes_on_after(tokenizer, start)
    newline = Piece("\n", inner=inner)

    def turn(number: int, turn: Turn) -> list[Piece]:
        if turn.role == "assistant":
            return [Piece(turn.text, number, inner=True), Piece(end, number), newline]
        return [Piece(start), Piece(f"{turn.role}\n{turn.text}", inner=inner), Piece(end), newline]

    return TurnTemplate("chatml", end, (Piece(start), Piece("assistant\n", inner=inner)), turn)


BUILT_IN: dict[str, Callable[[Any], TurnTemplate]] = {"user_assistant": _user_assistant, "chatml": _chatml}
"""Templates that need no Jinja."""
