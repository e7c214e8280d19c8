"""Submit again what a failed or cancelled run still needs. What is done is not done again."""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import EXIT_FAILED, EXIT_OK, SubmissionError, report_errors
from hpcsft.find_run import RUN_HELP, find_run
from hpcsft.spec import SET_OPTION


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="resume.py", description=__doc__)
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    parser.add_argument(
        "--set",
        **SET_OPTION,
        help="other resources from now on, such as cluster.train.nodes=2; only cluster.*, evaluate.checks.*, "
        "evaluate.judge.* and notify can change",
    )
    parser.add_argument("--force", action="store_true", help="submit in spite of errors that are only estimates")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    run = find_run(arguments.run)
    from hpcsft.cluster.intent import settle_run
    from hpcsft.cluster.resume import resume_run
    from hpcsft.monitor.look import look_at
    from hpcsft.preflight.request import check_changes

    settle_run(run)
    [state] = look_at([run], detailed=False)
    if state.state in ("pending", "running"):
        if run.cancelled.exists():
            hint = f"try again in a moment; if they do not end, python launch/cancel.py {run.path}"
            raise SubmissionError(f"{run.path} was cancelled, but its jobs have not ended yet", hint)
        print(f"{run.path} is {state.state}; nothing to resume" + "; --set changes nothing" * bool(arguments.overrides))
        return EXIT_FAILED if arguments.overrides else EXIT_OK
    if busy := [stage.name for stage in state.stages if stage.state == "running"]:
        hint = f"wait for it, or python launch/cancel.py {run.path}"
        raise SubmissionError(f"{run.path} has {state.state}, but {', '.join(busy)} still runs", hint)
    undone = ("failed", "cancelled", "waiting", "pending")
    missing = [stage.name for stage in state.stages if stage.state in undone]
    if not missing:
        print(f"nothing of {run.path} has failed, waits or was cancelled; nothing to resume")
        return EXIT_OK
    for finding in check_changes(run, missing, arguments.overrides, arguments.force):
        print("\n".join(finding.lines()), file=sys.stderr)
    jobs, warnings = resume_run(run, missing, arguments.overrides)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for job in jobs:
        print(f"{job.stage:<14} job {job.job_id}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(report_errors(main))
