"""Parts of a screen, fitted to its height: what matters least gives way. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment

PLAIN = str.maketrans({"·": "-", "▸": ">", "…": "~", "±": "+", "↑": "^", "↓": "v", "─": "-", "━": "=", "╸": "-"})
"""For terminals that know ASCII only; one character for one, so that columns stay where they are."""

ROOMY = 20
"""A screen of so many lines has room for a part that matters less."""


@dataclass(frozen=True)
class Part:
    """One part of a screen, from the top to the bottom."""

    content: RenderableType
    rank: int
    """Of parts that do not all fit, those of a higher rank are cut first."""
    end: bool = False
    """Of what does not fit, its end is shown, as of a log; else its beginning."""
    least: int = 0
    """So many of its lines are kept whatever the rank, where there is some room."""
    bottom: bool = False
    """It and what follows stand at the lower edge."""


class Fit:
    """Parts one below the other; within `height`, where there is one, and in the characters that the terminal knows."""

    def __init__(self, parts: Sequence[Part], height: int | None = None):
        self.parts = parts
        self.height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        free = options.update(height=None)
        blocks = [console.render_lines(part.content, free, pad=False) for part in self.parts]
        if self.height is not None:
            blocks = self._cut(blocks, self.height)
        for line in (line for block in blocks for line in block):
            yield from map(_plain, line) if options.ascii_only else line
            yield Segment.line()

    def _cut(self, blocks: list[list[list[Segment]]], height: int) -> list[list[list[Segment]]]:
        kept = list(blocks)
        leasts = [part.least if height >= ROOMY else 0 for part in self.parts]
        reserved = [min(least, len(lines)) for least, lines in zip(leasts, blocks, strict=True)]
        room = height - sum(reserved)
        for place in sorted(range(len(blocks)), key=lambda place: self.parts[place].rank):
            lines, end = blocks[place], self.parts[place].end
            room += reserved[place]
            kept[place] = (lines[-room:] if end else lines[:room]) if room else []
            room -= len(kept[place])
        edge = next((place for place, part in enumerate(self.parts) if part.bottom), None)
        if edge is not None:
            kept.insert(edge, [[] for _ in range(room)])
        return kept


def _plain(segment: Segment) -> Segment:
    text = segment.text.translate(PLAIN).encode("ascii", errors="replace").decode()
    return Segment(text, segment.style, segment.control)
