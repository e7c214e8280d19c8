"""Tasks of lm-evaluation-harness on every checkpoint. Usage: python jobs/benchmark.py RUN_DIR [INDEX]"""

import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.stage import StageContext, run_stage


def body(context: StageContext) -> None:
    # both are read when the libraries are imported
    os.environ |= {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    from hpcsft.benchmark.benchmark import benchmark

    benchmark(context)


if __name__ == "__main__":
    run_stage("benchmark", body)
