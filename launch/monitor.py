"""Show how runs go. Leaving it leaves the jobs alone."""

import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import report_errors

EPILOG = """on a terminal: ? tells the keys, q leaves; in a pipe: a line for each change.
exit codes: 0 done, 100 a stage failed, 101 unfinished, 102 no such run, 103 cancelled, 104 waits for a judge;
of several runs that of the worst. ACCESSIBLE=1 prints lines on a terminal too; NO_COLOR is respected."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="monitor.py", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = "run directory, run name, Slurm job id, or a folder of runs; default: the run that was submitted last"
    parser.add_argument("runs", metavar="RUN", nargs="*", help=what)
    parser.add_argument("--once", action="store_true", help="show the state once, and tell it by the exit code")
    parser.add_argument("--json", action="store_true", help="a JSON line for each change; with --once one document")
    parser.add_argument(
        "--display",
        choices=["auto", "live", "plain"],
        default="auto",
        help="live screen or one line per change; auto looks whether this is a terminal",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    from hpcsft.cluster.intent import settle_if_possible
    from hpcsft.find_run import find_runs
    from hpcsft.monitor.app import print_summary, watch
    from hpcsft.monitor.look import ONCE_AGE_S, look_at
    from hpcsft.monitor.state.run import exit_code

    runs = find_runs(arguments.runs)
    for run in runs:
        settle_if_possible(run)
    if not arguments.once:
        states = watch(runs, arguments.display, arguments.json)
    else:
        states = look_at(runs, ONCE_AGE_S, detailed=len(runs) == 1 or arguments.json)
        if arguments.json:
            documents = [state.model_dump(mode="json") for state in states]
            whole = documents[0] if len(states) == 1 else {"schema_version": 1, "runs": documents}
            print(json.dumps(whole, indent=2, ensure_ascii=False))
        else:
            from rich.console import Console

            print_summary(states, Console())
    return exit_code(states)


if __name__ == "__main__":
    sys.exit(report_errors(main))
