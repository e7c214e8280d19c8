"""What an experiment will cost: memory of each GPU, steps, GPU-hours, disk. Submits and writes nothing."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import EXIT_OK, report_errors
from hpcsft.estimate import checkpoint_bytes, with_signal_lead
from hpcsft.estimate.document import plan_document
from hpcsft.estimate.work import exact_workload
from hpcsft.gpus import GPUS, gpu_named
from hpcsft.hub.fetch import locate
from hpcsft.inputs import check_inputs
from hpcsft.plan import make_plan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.spec import SET_OPTION, load_spec


def number(most: float, what: str) -> Callable[[str], float]:
    """Reads a number above 0 and up to `most`."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if 0 < (value := float(text)) <= most:
                return value
        raise argparse.ArgumentTypeError(f"expected {what}; given '{text}'")

    return read


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="plan.py", description=__doc__)
    parser.add_argument("spec", metavar="SPEC.json", help="the experiment")
    parser.add_argument("--set", **SET_OPTION, help="override a field, such as train.zero_stage=3; may be repeated")
    gpus, reached = [gpu.name for gpu in GPUS], number(1, "a share above 0 and up to 1, such as 0.4")
    parser.add_argument("--gpu", default="a100-80gb", choices=gpus, help="the GPUs of your nodes (default a100-80gb)")
    parser.add_argument("--mfu", type=reached, default=0.4, help="share of its peak that is reached (default 0.4)")
    parser.add_argument("--quota", type=number(1e9, "a size in GB"), metavar="GB", help="your quota where runs_dir is")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    spec = load_spec(arguments.spec, arguments.overrides)
    local = locate(spec, data=not (run := RunDir(spec.run_path)).manifest.exists())
    facts = check_inputs(local, ["preprocess", "train"])
    plan = with_signal_lead(make_plan(spec), checkpoint_bytes(spec, facts.model.num_parameters, facts.model.shape))
    if run.manifest.exists():
        workload = exact_workload(read_json(run.audit), spec)
    else:
        from hpcsft.models.tokenizer import without_torch

        without_torch()
        from hpcsft.data.amount import estimate_workload

        workload = estimate_workload(local)
    rates = gpu_named(arguments.gpu), arguments.mfu, arguments.quota
    document = plan_document(spec, plan, facts.model, workload, *rates)
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        from hpcsft.estimate.text import print_plan

        sys.stdout.reconfigure(errors="backslashreplace")
        print_plan(document)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(report_errors(main))
