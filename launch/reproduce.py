"""Write the spec that runs a run again, and tell what has changed since: code, versions, inputs."""

import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import EXIT_FAILED, EXIT_OK, report_errors
from hpcsft.find_run import RUN_HELP, find_run

EPILOG = (
    "Exit code 0: nothing has changed that results depend on; 1: something has, and the spec is written all the same. "
    "Another Slurm or cluster changes no result."
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="reproduce.py", description=__doc__, epilog=EPILOG)
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the spec goes (default NAME-HASH.json here)")
    parser.add_argument(
        "--verify", action="store_true", help="read all inputs again: their contents decide, not size and time"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    run = find_run(arguments.run)
    from hpcsft.cluster.snapshot import source_root
    from hpcsft.provenance.reproduce import reproduce, reproduction_text

    found = reproduce(run, source_root(), arguments.output, arguments.verify)
    if arguments.json:
        print(json.dumps(found.model_dump(mode="json"), indent=2, ensure_ascii=False))
    else:
        print(reproduction_text(found))
    return EXIT_OK if found.unchanged else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(report_errors(main))
