"""What earlier runs of the same training have measured."""

from __future__ import annotations

import re
from pathlib import Path

from hpcsft.attempt.journal import all_rows
from hpcsft.plan import Plan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.runs_dirs import runs_in
from hpcsft.spec import ExperimentSpec

MOST_RUNS = 20
"""So many of the newest are looked at."""


def measured_save_s(spec: ExperimentSpec, plan: Plan) -> float | None:
    """Seconds of the longest save of the newest run in runs_dir that saves what this one will, from as many nodes.

    Such a run has this name (or is its smoke run), this model, and these settings of what a checkpoint holds. None if
    there is none, or it cannot be read.
    """
    name = re.compile(rf"{re.escape(spec.name)}(-smoke)?-[0-9a-f]{{8}}")
    try:
        runs = [run for run in runs_in(Path(spec.runs_dir)) if name.fullmatch(run.path.name)]
    except OSError:
        return None
    for run in runs[:MOST_RUNS]:
        try:
            if _saves_alike(run, spec, plan):
                saves_s = [row["took_s"] for row in all_rows(run, "train") if row["event"] == "saved"]
                if saves_s:
                    return max(saves_s)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of another version, or somebody else's
    return None


def _saves_alike(run: RunDir, spec: ExperimentSpec, plan: Plan) -> bool:
    earlier, ours = ExperimentSpec.model_validate(read_json(run.spec)), plan.stage("train")
    theirs = Plan.model_validate(read_json(run.plan)).stage("train")
    kept = {"zero_stage", "offload", "master_weights", "optimizer"}
    return (
        earlier.model == spec.model
        and earlier.train.model_dump(include=kept) == spec.train.model_dump(include=kept)
        and (theirs.nodes, theirs.tasks_per_node) == (ours.nodes, ours.tasks_per_node)
    )
