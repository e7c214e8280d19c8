"""Score AlpacaEval annotation files: win rates as AlpacaEval computes them, how sure they are, and what they hide."""

import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import EXIT_OK, report_errors
from hpcsft.evaluate.scores.annotations import Annotations, read_annotations
from hpcsft.evaluate.scores.length_control import read_difficulty
from hpcsft.evaluate.scores.paired import compare, not_compared
from hpcsft.evaluate.scores.summary import score

EPILOG = (
    "--json prints one object for one model, and {'models': [...], 'differences': [...], 'not_compared': [...]} for "
    "several; only models of one judge and one reference are compared. "
    "Rates, errors and intervals are in percent. p-values and intervals are the same on every machine."
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="score.py", description=__doc__, epilog=EPILOG)
    parser.add_argument("files", metavar="ANNOTATIONS.json", nargs="+", help="annotations, of this tool or AlpacaEval")
    parser.add_argument("--generator", metavar="NAME", help="only the rows of this model")
    parser.add_argument(
        "--reference",
        metavar="NAME",
        help="who wrote output_1, for old files that do not say so; a `generator` of this name is the reference's",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of AlpacaEval's draw of the order (default 0, as AlpacaEval's)"
    )
    parser.add_argument(
        "--difficulty",
        metavar="FILE",
        help="AlpacaEval's df_gamed.csv or instruction_difficulty.csv, for its length-controlled win rate",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    return parser


def read_all(arguments: argparse.Namespace) -> list[Annotations]:
    """The models of all files; a name that comes again gets its file's."""
    models: dict[str, Annotations] = {}
    for file in dict.fromkeys(arguments.files):
        for model in read_annotations(file, arguments.generator, arguments.seed, arguments.reference):
            name = f"{model.name} ({file})" if model.name in models else model.name
            models[name] = model._replace(name=name)
    return list(models.values())


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    difficulty = read_difficulty(arguments.difficulty) if arguments.difficulty else None
    models = read_all(arguments)
    scores = [score(model, difficulty) for model in models]
    differences, apart = compare(models), not_compared(models)
    if arguments.json:
        parts = {"models": scores, "differences": differences, "not_compared": apart}
        document = {name: [record.model_dump() for record in records] for name, records in parts.items()}
        print(json.dumps(document["models"][0] if len(scores) == 1 else document, indent=2))
    else:
        from rich.console import Console

        from hpcsft.evaluate.scores.text import print_scores

        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 gets codes, not a traceback
        print_scores(scores, differences, apart, Console())
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(report_errors(main))
