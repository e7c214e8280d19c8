"""Training with DeepSpeed, one process per rank. Usage: python jobs/train.py RUN_DIR"""

import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.attempt.ending import ends_at_once
from hpcsft.stage import StageContext, run_stage


def body(context: StageContext) -> None:
    if context.stage.gpus_per_node == 0:
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when DeepSpeed is imported
    from hpcsft.train.distributed import export_environment

    export_environment(context)
    from hpcsft.train.loop import train

    train(context)


if __name__ == "__main__":
    with ends_at_once():
        run_stage("train", body)
