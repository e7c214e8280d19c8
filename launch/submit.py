"""Turn a spec into jobs: preprocess, train, generate, benchmark, judge, report. Returns at once."""

import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import EXIT_FAILED, EXIT_OK, report_errors
from hpcsft.spec import SET_OPTION, load_spec


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="submit.py", description=__doc__)
    parser.add_argument("spec", metavar="SPEC.json", help="the experiment")
    parser.add_argument(
        "--set", **SET_OPTION, help="override a field, such as train.learning_rate=2e-5; may be repeated"
    )
    parser.add_argument("--dry-run", action="store_true", help="show all that would be done, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.add_argument("--watch", action="store_true", help="stay and show the run until it ends")
    parser.add_argument("--smoke", action="store_true", help="first run two steps of it on one node, and wait for them")
    parser.add_argument("--force", action="store_true", help="submit in spite of errors that are only estimates")
    parser.add_argument(
        "--rehearse-preemption",
        action="store_true",
        help="preempt a short run on purpose, and tell how save, requeue and resume went on this cluster",
    )
    parser.add_argument("--stages", metavar="A,B", help="submit only these stages")
    parser.add_argument("--cluster", choices=["auto", "slurm", "local"], help="override cluster.kind")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    from hpcsft.cluster.submit import submission_text, submit_experiment
    from hpcsft.preflight.request import Request

    overrides = arguments.overrides + ([f"cluster.kind={arguments.cluster}"] if arguments.cluster else [])
    request = Request.of(load_spec(arguments.spec, overrides), arguments.stages)
    command = sys.argv if argv is None else ["submit", *argv]
    if arguments.dry_run:
        from hpcsft.cluster.dry_run import dry_run, dry_run_text

        document = dry_run(request.spec, request.plan, request.facts, request.kind, request.stages)
        print(json.dumps(document, indent=2) if arguments.json else dry_run_text(document))
        return EXIT_OK
    warnings = request.check(arguments.force)
    if arguments.rehearse_preemption:
        from hpcsft.cluster.rehearsal import rehearsal_text, rehearse

        rehearsed = rehearse(request.spec, command)
        print(rehearsal_text(rehearsed))
        return EXIT_FAILED if any(row.lost_steps for row in rehearsed) else EXIT_OK
    if arguments.smoke:
        from hpcsft.cluster.smoke import smoke
        from hpcsft.monitor.app import watch_to_the_end

        smoke(request.spec, request.stages, command, watch_to_the_end, quiet=arguments.json)
    run, jobs, submitted = submit_experiment(request.spec, request.plan, request.stages, command)
    if arguments.json:
        rows = [{key: getattr(job, key) for key in ("stage", "job_id", "depends_on", "tasks")} for job in jobs]
        told = [found.model_dump(include={"where", "message", "hint"}) for found in warnings]
        print(json.dumps({"run_dir": str(run.path), "jobs": rows, "warnings": told}, indent=2), flush=True)
    else:
        lines = [line for found in warnings for line in found.lines()]
        print(submission_text(str(run.path), jobs, submitted, lines), flush=True)
    if not arguments.watch:
        return EXIT_OK
    from hpcsft.monitor.app import watch_to_the_end

    return watch_to_the_end(run, quiet=arguments.json)


if __name__ == "__main__":
    sys.exit(report_errors(main))
