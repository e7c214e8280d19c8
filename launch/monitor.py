"""Show how runs go. Only reads; leaving it leaves the jobs alone."""

import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import RunNotFoundError, report_errors
from hpcsft.monitor.app import look, watch
from hpcsft.rundir import RunDir


def parser() -> argparse.ArgumentParser:
    """The command line."""
    epilog = "exit codes with --once: 0 done, 100 a stage failed, 101 unfinished, 102 no such run, 103 cancelled"
    parser = argparse.ArgumentParser(prog="monitor.py", description=__doc__, epilog=epilog)
    parser.add_argument("run_dirs", metavar="RUN_DIR", nargs="*", help="run directory; default: the newest in runs/")
    parser.add_argument("--once", action="store_true", help="show the state once, and tell it by the exit code")
    parser.add_argument("--json", action="store_true", help="with --once: one JSON document per run")
    parser.add_argument(
        "--display",
        choices=["auto", "live", "plain"],
        default="auto",
        help="live screen or one line per change; auto looks whether this is a terminal",
    )
    return parser


def newest_run() -> str:
    """The run under runs/ that was submitted last."""
    found = sorted(Path("runs").glob("*/submission.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RunNotFoundError("no run in runs/", "name a run directory")
    return str(found[-1].parent)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    if arguments.json and not arguments.once:
        parser().error("--json goes with --once")
    runs = [RunDir.open(path) for path in arguments.run_dirs or [newest_run()]]
    states = [look(run) if arguments.once else watch(run, arguments.display) for run in runs]
    if arguments.once and arguments.json:
        for state in states:
            print(json.dumps(state.model_dump(mode="json"), indent=2, ensure_ascii=False))
    elif arguments.once:
        from rich.console import Console

        from hpcsft.monitor.view import render

        console = Console()
        for state in states:
            console.print(render(state, console.width))
    return max(state.exit_code for state in states)


if __name__ == "__main__":
    sys.exit(report_errors(main))
