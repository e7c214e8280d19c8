"""Every answer against its reference. Usage: python jobs/judge.py RUN_DIR"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.stage import StageContext, run_stage


def body(context: StageContext) -> None:
    from hpcsft.evaluate.judge import judge

    judge(context)


if __name__ == "__main__":
    run_stage("judge", body)
