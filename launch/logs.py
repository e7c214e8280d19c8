"""Print the log of a stage: of what failed first, else of what started last, or as asked."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import EXIT_OK, report_errors
from hpcsft.find_run import RUN_HELP, find

EPILOG = (
    "Names of files go to stderr, logs to stdout. --follow ends with the stage; exit codes then: 0 done, 100 failed, "
    "103 cancelled, 104 waiting for a person. Ctrl-C leaves the jobs alone."
)


def number(least: int, *words: str) -> Any:
    """Reads a whole number from `least` on, or one of `words`."""

    def read(text: str) -> int | str:
        if text in words:
            return text
        if text.isdigit() and int(text) >= least:
            return int(text)
        allowed = " or ".join([f"a whole number from {least} on", *words])
        raise argparse.ArgumentTypeError(f"expected {allowed}; given '{text}'")

    return read


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="logs.py", description=__doc__, epilog=EPILOG)
    parser.add_argument("run", metavar="RUN", help=f"{RUN_HELP}; a job chooses its stage")
    parser.add_argument("stage", metavar="STAGE", nargs="?", help="default: what failed first, else what started last")
    parser.add_argument("--rank", type=number(0), metavar="N", help="whose log (default: the rank that failed, else 0)")
    parser.add_argument("--index", type=number(0), metavar="N", help="which task of a stage that is an array")
    parser.add_argument("--attempt", type=number(1, "all"), metavar="N", help="1 is the oldest; or all")
    parser.add_argument(
        "--stream", choices=["both", "out", "err"], default="both", help="default both, one after the other"
    )
    parser.add_argument("--tail", type=number(0), metavar="N", help="only the last N lines")
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what is appended, over requeues")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    from hpcsft.logs.choose import Wish, choose
    from hpcsft.logs.show import follow, show

    found = find(arguments.run)
    of_job = arguments.stage in (None, found.stage) or found.stage is None
    wish = Wish(
        stage=arguments.stage or found.stage,
        index=found.index if arguments.index is None and of_job else arguments.index,
        rank=arguments.rank,
        attempt=arguments.attempt,
        job_id=found.job_id if of_job else None,
        stream=arguments.stream,
    )
    choice = choose(found.run, wish)
    if not arguments.follow:
        show(found.run, choice, arguments.stream, arguments.tail)
        return EXIT_OK
    from hpcsft.monitor.state.run import EXIT_CODE

    state = follow(found.run, choice, arguments.stream, arguments.tail)
    print(f"{choice.attempts[-1].stage}: {state}", file=sys.stderr)
    return EXIT_CODE[state]


if __name__ == "__main__":
    sys.exit(report_errors(main))
