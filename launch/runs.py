"""List runs: state, when submitted, how far, and what they take on the disk."""

import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import EXIT_OK, report_errors
from hpcsft.find_run import find_runs
from hpcsft.runs_dirs import known_runs


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="runs.py", description=__doc__)
    what = "a folder of runs, or a run (default: ./runs, $HPCSFT_RUNS_DIR, and wherever you have submitted runs to)"
    parser.add_argument("folders", metavar="FOLDER", nargs="*", help=what)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.add_argument(
        "--sort", choices=["name", "time", "disk"], default="time", help="default time: the newest first"
    )
    parser.add_argument("--no-disk", action="store_true", help="do not look at every file: quicker")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    from rich.console import Console

    from hpcsft.runs_list import list_runs, runs_table, sort_rows, sum_lines

    runs = find_runs(arguments.folders) if arguments.folders else known_runs()
    with Console(stderr=True).status(f"looking at {len(runs)} runs; --no-disk is quicker"):
        found = list_runs(runs, disk=not arguments.no_disk)
    found = found.model_copy(update={"runs": sort_rows(found.runs, arguments.sort)})
    if arguments.json:
        print(json.dumps(found.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return EXIT_OK
    console = Console()
    if found.runs:
        console.print(runs_table(found, console.width))
    for line in sum_lines(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(report_errors(main))
