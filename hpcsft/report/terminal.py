"""The table of a run on a terminal, from 80 columns on. Light."""

from __future__ import annotations

from rich.console import Console

from hpcsft.evaluate.scores.text import print_differences, print_line, print_side_by_side, print_tables
from hpcsft.report import sentences, tables
from hpcsft.report.document import Results


def print_results(results: Results, console: Console) -> None:
    """What report.md says about this run, without the rows of others."""
    if setting := sentences.setting_sentence(results):
        print_line(setting, console)
        console.print()
    print_side_by_side([tables.main_table(results), *tables.hidden_tables(results)], console)
    print_differences(results.differences, console)
    if benchmarks := tables.benchmark_table(results):
        print_tables([benchmarks], console)
    lines = [
        sentences.noise_sentence(results),
        *sentences.generation_lines(results),
        sentences.benchmark_sentence(results),
        sentences.training_sentence(results),
        sentences.data_sentence(results) + ".",
    ]
    for line in filter(None, lines):
        print_line(line, console)
