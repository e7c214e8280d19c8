"""Cancel all jobs of a run. What it has made so far is kept."""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import EXIT_FAILED, EXIT_OK, ClusterError, report_errors
from hpcsft.find_run import RUN_HELP, find_run

MARKED = "the run is marked as cancelled, so nothing of it starts any more; what runs goes on until you cancel it again"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="cancel.py", description=__doc__)
    parser.add_argument("run", metavar="RUN", help=f"{RUN_HELP}: the whole run is cancelled")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    run = find_run(arguments.run)
    from hpcsft.cluster.intent import settle_if_possible
    from hpcsft.cluster.submit import cancel_run
    from hpcsft.monitor.look import look_at
    from hpcsft.question import agreed

    settle_if_possible(run)
    [state] = look_at([run], tolerant=True, detailed=False)
    if state.finished:
        print(f"{run.path} {'waits' if state.state == 'waiting' else 'has ended already'}; nothing to cancel")
        return EXIT_OK
    for stage in state.stages:
        if stage.state in ("pending", "running"):
            print(f"{stage.name:<14} {stage.state:<10} job {' '.join(stage.job_ids)}")
    if not agreed(f"cancel {run.path}?", arguments.yes):
        print("left alone; --yes does not ask")
        return EXIT_FAILED
    try:
        ids = cancel_run(run)
    except ClusterError as error:
        raise ClusterError(f"{error.message}; {MARKED}", error.hint) from None
    print(f"cancelled {' '.join(ids) or 'nothing'}; go on later with python launch/resume.py {run.path}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(report_errors(main))
