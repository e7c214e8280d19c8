"""Show the first rows of the data as training would see them, what is learnt marked. Submits and writes nothing."""

import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import EXIT_INVALID, EXIT_OK, report_errors
from hpcsft.spec import SET_OPTION, load_spec

MOST_ROWS = 1_000_000
"""They are held in memory."""

EPILOG = (
    "Exit code 2 if the spec or the data cannot be used, no training row is left, or there are more bad rows than "
    "data.max_bad_share allows, so that preprocessing would stop."
)


def number_of_rows(text: str) -> int:
    """A whole number from 1 to MOST_ROWS."""
    if not text.isascii() or not text.isdigit() or len(text) > 7 or not 1 <= int(text) <= MOST_ROWS:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {MOST_ROWS:,}, given '{text}'")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="preview.py", description=__doc__, epilog=EPILOG)
    parser.add_argument("spec", metavar="SPEC.json", help="the experiment")
    parser.add_argument("--set", **SET_OPTION, help="override a field, such as data.mask=last_turn; may be repeated")
    parser.add_argument("--rows", metavar="N", type=number_of_rows, default=3, help="training rows to show (default 3)")
    parser.add_argument(
        "--first", metavar="M", type=number_of_rows, default=500, help="rows to read of each source (default 500)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    spec = load_spec(arguments.spec, arguments.overrides)

    from hpcsft.models.tokenizer import without_torch

    without_torch()
    from hpcsft.data.preview import preview
    from hpcsft.hub.fetch import locate

    document = preview(locate(spec, data=True), arguments.rows, arguments.first)
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        from rich.console import Console

        from hpcsft.data.preview_text import print_preview

        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 gets codes, not a traceback
        print_preview(document, Console())
    usable = all(source["rows"] and not source["too_many_bad_rows"] for source in document["sources"])
    return EXIT_OK if usable else EXIT_INVALID


if __name__ == "__main__":
    sys.exit(report_errors(main))
