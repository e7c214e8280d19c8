"""Answers of every checkpoint to the prompts. Usage: python jobs/generate.py RUN_DIR [INDEX]"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.stage import StageContext, run_stage


def body(context: StageContext) -> None:
    from hpcsft.evaluate.generate import generate

    generate(context)


if __name__ == "__main__":
    run_stage("generate", body)
