"""Where an answer ends, and its text.

An answer ends at an end token; at what begins the next turn of the user, be it a control token or a text, which is
then cut off; or after as many tokens as it may have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from hpcsft.data.formats import Conversation, RowError, Turn
from hpcsft.data.pieces import Piece, Template
from hpcsft.spec.evaluate import GenerationSpec

Finish = Literal["stop", "turn", "length"]
"""It ended itself; it went on with the user's next turn; it was cut."""

SLACK_TOKENS = 3
"""The first tokens of a tail may decode otherwise than in their place: half a character, a space that is left out."""

_ANSWER, _QUESTION = "qa7x", "qb7x"
"""Texts of turns that stand in no template."""


class Ending:
    """Tells where answers end."""

    def __init__(self, tokenizer: Any, template: Template, settings: GenerationSpec):
        self._tokenizer = tokenizer
        self.end_tokens = {template.end, tokenizer.eos_token_id} - {None}
        token, text = (None, None) if settings.prompt_style == "raw" else next_turn(template)
        texts = settings.stop if settings.stop is not None else [text] if text else []
        added = tokenizer.get_added_vocab()
        self.turn_tokens = ({token} | {added.get(text) for text in texts}) - {None} - self.end_tokens
        """Tokens that begin the next turn, or that the spec wants to end answers."""
        self.texts = [text for text in texts if text not in added]
        """The same as texts."""
        self._window = SLACK_TOKENS + max((len(text.encode()) for text in self.texts), default=0)

    def tokens(self) -> list[int]:
        """All tokens that end an answer."""
        return sorted(self.end_tokens | self.turn_tokens)

    def finish(self, ids: Sequence[int], budget: int) -> Finish | None:
        """How an answer of the tokens `ids` ends with the last of them; None if it goes on."""
        if ids[-1] in self.end_tokens:
            return "stop"
        if ids[-1] in self.turn_tokens or self._says_stop(ids):
            return "turn"
        return "length" if len(ids) >= budget else None

    def text(self, ids: Sequence[int]) -> str:
        """The text of a finished answer, without what ended it."""
        ended = ids[-1] in self.end_tokens | self.turn_tokens
        text = self._decode(ids[:-1] if ended else ids)
        places = [text.find(stop) for stop in self.texts if stop in text]
        return text[: min(places, default=len(text))].strip()

    def _says_stop(self, ids: Sequence[int]) -> bool:
        def found(text: str) -> bool:
            return any(stop in text for stop in self.texts)

        return bool(self.texts) and found(self._decode(ids[-self._window :])) and found(self._decode(ids))

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)


def next_turn(template: Template) -> tuple[int | None, str | None]:
    """What the template writes after an answer to begin the user's next turn: a control token, or else a text.

    Neither if it begins with the user's own words, or the template refuses such turns.
    """
    turns: Conversation = [Turn("user", _QUESTION), Turn("assistant", _ANSWER), Turn("user", _QUESTION)]
    for head in ([], [Turn("system", _QUESTION)]):
        try:
            pieces = template.prefix([*head, *turns])
        except RowError:
            continue
        return _between(pieces, template.end)
    return None, None


def _between(pieces: Sequence[Piece], end: int) -> tuple[int | None, str | None]:
    answered = next((place for place, piece in enumerate(pieces) if _holds(piece, _ANSWER)), len(pieces))
    after = [piece.content for piece in pieces[answered + 1 :]]
    text = ""
    for place, content in enumerate(after):
        if place == 0 and content == end:
            continue
        if isinstance(content, int):
            return content, None
        text += content.partition(_QUESTION)[0]
        if _QUESTION in content:
            break
    return None, text.rstrip() or None


def _holds(piece: Piece, text: str) -> bool:
    return isinstance(piece.content, str) and text in piece.content
