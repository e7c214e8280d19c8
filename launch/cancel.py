"""Cancel all jobs of a run. What it has made so far is kept."""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.cluster.submit import cancel_run
from hpcsft.errors import EXIT_FAILED, EXIT_OK, report_errors
from hpcsft.monitor.app import look
from hpcsft.rundir import RunDir


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="cancel.py", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    arguments = parser.parse_args(argv)
    run = RunDir.open(arguments.run_dir)
    state = look(run, tolerant=True)
    if state.finished:
        print(f"{run.path} {'waits' if state.state == 'waiting' else 'has ended already'}; nothing to cancel")
        return EXIT_OK
    if not arguments.yes and not (sys.stdin.isatty() and input(f"cancel {run.path}? [y/N] ").lower().startswith("y")):
        print("left alone; --yes does not ask")
        return EXIT_FAILED
    print(f"cancelled {' '.join(cancel_run(run)) or 'nothing'}; go on later with python launch/resume.py {run.path}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(report_errors(main))
