"""Every answer against its reference. Usage: python jobs/judge.py RUN_DIR [--force] [--over-budget]

Endpoints are reached from where there is internet: in a job, or on the login node. Started by hand, it makes the
report as well. --force pays for answers that the checks would refuse, --over-budget beyond evaluate.judge.max_cost_usd.
"""

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.attempt.identity import TaskIdentity
from hpcsft.rundir import RunDir
from hpcsft.stage import StageContext, run_stage

OPTIONS = ("--force", "--over-budget")


def body(context: StageContext) -> None:
    from hpcsft.evaluate.judge import judge

    judge(context)


def not_in_the_queue(run: RunDir) -> None:
    from hpcsft.cluster.held import refuse_if_held

    refuse_if_held(run, "judge")


def report(run: RunDir) -> None:
    from hpcsft.cluster.held import report_waits_for

    if missing := report_waits_for(run):
        print(f"the report waits for {', '.join(missing)}; then: python jobs/report.py {run.path}")
    else:
        sys.argv = [sys.argv[0], str(run.path)]
        runpy.run_path(str(Path(__file__).with_name("report.py")), run_name="__main__")


if __name__ == "__main__":
    run_stage("judge", body, options=OPTIONS, before=not_in_the_queue)
    if TaskIdentity.from_environment().by_hand and "--help" not in sys.argv:
        report(RunDir(next(argument for argument in sys.argv[1:] if argument not in OPTIONS)))
