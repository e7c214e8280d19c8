"""Show the first rows of the data as training would see them, what is learnt marked. Submits and writes nothing."""

import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import EXIT_INVALID, EXIT_OK, report_errors
from hpcsft.spec import load_spec


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, given '{text}'")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="preview.py", description=__doc__)
    parser.add_argument("spec", metavar="SPEC.json", help="the experiment")
    parser.add_argument(
        "--set",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override a field, such as data.mask=last_turn; may be repeated",
    )
    parser.add_argument("--rows", metavar="N", type=positive, default=3, help="training rows to show (default 3)")
    parser.add_argument(
        "--first", metavar="M", type=positive, default=500, help="rows to read of each source (default 500)"
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

    document = preview(spec, arguments.rows, arguments.first)
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        from rich.console import Console

        from hpcsft.data.preview_text import print_preview

        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 gets codes, not a traceback
        print_preview(document, Console())
    return EXIT_OK if all(source["rows"] for source in document["sources"]) else EXIT_INVALID


if __name__ == "__main__":
    sys.exit(report_errors(main))
