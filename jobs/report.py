"""Everything that was found out, as tables. Usage: python jobs/report.py RUN_DIR"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.stage import StageContext, run_stage


def body(context: StageContext) -> None:
    from hpcsft.report.report import report

    report(context)


if __name__ == "__main__":
    run_stage("report", body)
