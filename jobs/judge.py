"""Every answer against its reference. Usage: python jobs/judge.py RUN_DIR [--force]

Endpoints are reached from where there is internet: in a job, or on the login node. Started by hand, it makes the
report as well. --force pays for answers that the checks would refuse, and beyond evaluate.judge.max_cost_usd.
"""

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.attempt.identity import TaskIdentity
from hpcsft.stage import StageContext, run_stage


def body(context: StageContext) -> None:
    from hpcsft.evaluate.judge import judge

    judge(context)


if __name__ == "__main__":
    run_stage("judge", body, forcible=True)
    if TaskIdentity.from_environment().by_hand:
        sys.argv = [argument for argument in sys.argv if argument != "--force"]
        runpy.run_path(str(Path(__file__).with_name("report.py")), run_name="__main__")
