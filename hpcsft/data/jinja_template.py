"""Chat templates in Jinja, rendered by transformers, as pieces with exact boundaries.

Nothing is searched for in the rendered text: where turns stand is known from a render around markers (jinja_layout),
made once per sequence of roles. Every conversation is then rendered for real too, and must come out the same.

What stands after the text that asks for an answer and before the answer's own text (the empty block of thoughts of
some templates) is part of the answer: at inference the model has to write it itself.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

from hpcsft.data.formats import Conversation, RowError
from hpcsft.data.jinja_layout import PADDINGS, Layout, marker
from hpcsft.data.pieces import Piece
from hpcsft.data.special_tokens import SpecialTokens, goes_on_after
from hpcsft.errors import StageError

TODAY = datetime.date(2024, 7, 26)
"""What templates that ask for the date are told, so that no two tasks differ: what Llama 3.1's says without a clock."""

MAX_TURNS = 500
"""A template is rendered for every answer of the longest conversation; the time for that grows with the square."""

Roles = tuple[str, ...]


def find_source(name: str, tokenizer: Any) -> str:
    """The Jinja text of the tokenizer's own chat template, or of the file `name`. StageError if there is none."""
    if name == "tokenizer":
        try:
            return tokenizer.get_chat_template()
        except ValueError:
            hint = "set data.template to user_assistant, chatml or the path of a Jinja file"
            raise StageError("data.template: the tokenizer has no chat template of its own", hint) from None
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        hint = "data.template is user_assistant, chatml, tokenizer or the path of a Jinja file"
        raise StageError(f"data.template: the Jinja file {name} cannot be read: {reason}", hint) from None


class JinjaTemplate:
    """A Template from Jinja text. StageError if it does not compile, or its answers cannot be told apart exactly."""

    def __init__(self, name: str, tokenizer: Any, source: str):
        self.name = name
        self.source = source
        try:
            self._jinja = _compile_jinja_template(source)
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            where = f" in line {line}" if line else ""
            raise StageError(f"data.template: the chat template does not compile: {error.message}{where}") from None
        self._variables = {
            **tokenizer.special_tokens_map,
            "tools": None,
            "documents": None,
            "strftime_now": TODAY.strftime,
        }
        self._tokens = SpecialTokens(tokenizer)
        self._layouts: dict[tuple[Roles, bool], Layout | RowError] = {}
        self._end: int | None = None
        self._head, self.end = self._find_start_and_end()
        self._end = self.end
        self._layouts.clear()
        self._goes_on = goes_on_after(tokenizer, self.end)

    def pieces(self, turns: Conversation) -> list[Piece]:
        """A whole conversation, which ends with an answer.

        Raises RowError where the template refuses these turns, changes a text, or asks for the last answer with
        something else than what stands before it.
        """
        layout = self._layout(turns, asking=False)
        if len(turns) - 1 not in layout.answers:
            raise RowError(
                f"the chat template asks for turn {len(turns)} with something else than what it writes before it, or "
                "does not end it as others"
            )
        return self._filled(layout, turns, asking=False)

    def prefix(self, turns: Conversation) -> list[Piece]:
        """All that precedes the next answer: `turns` and the generation prompt. RowError as above."""
        return self._filled(self._layout(turns, asking=True), turns, asking=True)

    def check(self, mask: str) -> None:
        """StageError if the template cannot serve `mask`: all_turns needs every answer's boundaries exact.

        Conversations without a system turn decide, if the template takes them. Where a system turn alone makes a
        template write earlier turns anew (it moves to the last user turn), `pieces` gives no answer but the last.
        """
        for exchanges in (1, 2, 3):
            roles = self._head + ("user", "assistant") * exchanges
            layout = self._of_roles(roles, asking=False)
            if isinstance(layout, RowError):
                continue
            if len(roles) - 1 not in layout.answers:
                raise StageError(
                    f"data.template: the chat template asks for answer {exchanges} with something else than what it "
                    "writes before it, or does not end it as the first",
                    "name another template in data.template",
                )
            if mask == "all_turns" and len(layout.answers) != exchanges:
                raise StageError(
                    "data.template: the chat template writes earlier turns anew as a conversation goes on, so that not "
                    "all answers of one row stand behind what the model is given at inference",
                    "data.mask: per_turn or last_turn",
                )

    def _find_start_and_end(self) -> tuple[Roles, int]:
        """(the roles before the first user turn that the template takes, the token that ends an answer)."""
        refusal = None
        for head in ((), ("system",)):
            roles = (*head, "user", "assistant")
            asked, whole = self._of_roles(roles[:-1], asking=True), self._of_roles(roles, asking=False)
            if isinstance(asked, RowError) or isinstance(whole, RowError):
                refusal = refusal or next(layout for layout in (asked, whole) if isinstance(layout, RowError))
                continue
            if not asked.precedes(whole.renders):
                ending = asked.renders[0].rpartition(marker(len(roles) - 2))[2]
                raise StageError(
                    "data.template: what the chat template gives to ask for an answer is not what stands before the "
                    f"answer in a conversation; it ends with {ending!r}",
                    "write both alike in a Jinja file and name that in data.template",
                )
            if whole.end is None:
                raise StageError(
                    "data.template: the chat template ends an answer with no special token, so that generation would "
                    "not know where to stop",
                    "write the end-of-sequence token after every answer in a Jinja file and name that in data.template",
                )
            return head, whole.end
        raise StageError(f"data.template: {refusal}", "name another template in data.template")

    def _layout(self, turns: Conversation, asking: bool) -> Layout:
        if len(turns) > MAX_TURNS:
            raise RowError(f"{len(turns)} turns; with a chat template in Jinja at most {MAX_TURNS} are read")
        layout = self._of_roles(tuple([turn.role for turn in turns]), asking)
        if isinstance(layout, RowError):
            raise RowError(*layout.args)
        return layout

    def _of_roles(self, roles: Roles, asking: bool) -> Layout | RowError:
        found = self._layouts.get((roles, asking))
        if found is None:
            answers = [number for number, role in enumerate(roles) if role == "assistant"]
            for number in answers:  # from the first on, so that nothing recurs deeply
                if (roles[:number], True) not in self._layouts:
                    self._layouts[roles[:number], True] = self._make(roles[:number], True, answers)
            found = self._layouts[roles, asking] = self._make(roles, asking, answers)
        return found

    def _make(self, roles: Roles, asking: bool, answers: list[int]) -> Layout | RowError:
        try:
            renders = tuple(
                self._render(
                    [{"role": role, "content": left + marker(number) + right} for number, role in enumerate(roles)],
                    asking,
                )
                for left, right in PADDINGS
            )
        except RowError as refusal:
            return refusal
        for number in reversed([number for number in answers if number < len(roles)]):
            start = self._layouts[roles[:number], True]
            if isinstance(start, Layout) and start.precedes(renders):
                return start.extended(renders, number, self._tokens, self._end)
        return Layout().extended(renders, None, self._tokens, self._end)

    def _filled(self, layout: Layout, turns: Conversation, asking: bool) -> list[Piece]:
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        if layout.render(turns) != self._render(messages, asking):
            raise RowError(f"the chat template changes the text of {self._changed(layout, turns, asking)}")
        return layout.pieces(turns, self._goes_on)

    def _changed(self, layout: Layout, turns: Conversation, asking: bool) -> str:
        """Which turn it is whose text does not come out as it went in."""
        marked = [turn._replace(text=marker(number)) for number, turn in enumerate(turns)]
        for number, turn in enumerate(turns):
            one = [*marked[:number], turn, *marked[number + 1 :]]
            messages = [{"role": turn.role, "content": turn.text} for turn in one]
            if layout.render(one) != self._render(messages, asking):
                return f"turn {number + 1}"
        return "some turn"

    def _render(self, messages: list[dict[str, str]], asking: bool) -> str:
        try:
            return self._jinja.render(messages=messages, add_generation_prompt=asking, **self._variables)
        except Exception as error:  # other people's code: any kind
            reason = f"{type(error).__name__}: {error}" if not isinstance(error, TemplateError) else error.message
            raise RowError(f"the chat template refuses these turns: {reason}") from None
