"""The course of a figure as one line of blocks. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

SPARKS = "▁▂▃▄▅▆▇█"
ASCII_SPARKS = "_.-~=*#@"


class Sparkline:
    """The course of `values` in at most `width` columns."""

    def __init__(self, values: Sequence[float], width: int):
        self.values = values
        self.width = width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        sparks = ASCII_SPARKS if options.ascii_only else SPARKS
        yield Text(sparkline(self.values, min(self.width, options.max_width), sparks))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(1, min(self.width, len(self.values))))


def sparkline(values: Sequence[float], width: int, sparks: str = SPARKS) -> str:
    """At most `width` blocks, each for the mean of its share of `values`, from the lowest block to the highest."""
    num = min(width, len(values))
    cuts = [len(values) * place // num for place in range(num + 1)] if num > 0 else []
    means = [sum(values[begin:end]) / (end - begin) for begin, end in itertools.pairwise(cuts)]
    low, high = min(means, default=0), max(means, default=0)
    scale = (len(sparks) - 1) / (high - low) if high > low else 0
    return "".join(sparks[round((mean - low) * scale)] for mean in means)
