"""How early Slurm has to tell training that its time limit comes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpcsft.plan import Plan

SAVE_BYTES_PER_S = 500e6
"""What one node writes to a shared filesystem, before anything was measured."""
STOP_MARGIN_S = 60
"""From the signal to the end of the job, besides the step in progress and the save."""


def with_signal_lead(plan: Plan, checkpoint_bytes: int | None) -> Plan:
    """The plan with how early Slurm tells training that its time limit comes, guessed from the size of a checkpoint.

    Training itself also looks at the clock, with the step and the save as it measures them.
    """
    train = plan.stage("train")
    save_s = (checkpoint_bytes or 0) / train.nodes / SAVE_BYTES_PER_S
    return _with_lead(plan, round(STOP_MARGIN_S + 2 * save_s), f"writing a checkpoint may take {save_s:.0f} s")


def with_measured_lead(plan: Plan, journal: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]]) -> Plan:
    """The same from what earlier attempts have measured; the plan as it is if they have not."""
    saves_s = [row["took_s"] for row in journal if row["event"] == "saved"]
    if not saves_s or not metrics:
        return plan
    step_s = max(row["tokens"] / row["tokens_per_s"] for row in metrics)
    told = f"a step took up to {step_s:.0f} s and a checkpoint {max(saves_s):.0f} s"
    return _with_lead(plan, round(STOP_MARGIN_S + 2 * step_s + 1.5 * max(saves_s)), told)


def _with_lead(plan: Plan, lead_s: int, because: str) -> Plan:
    train = plan.stage("train")
    limit_s = 60 * train.time_min
    signal_s = min(lead_s, limit_s // 2)  # a signal ahead of the start would come at once
    warnings = [warning for warning in plan.warnings if not warning.startswith("cluster.train.time")]
    if signal_s < lead_s:
        warnings.append(
            f"cluster.train.time {train.time} is short: {because}, so that the job should be told to stop "
            f"{lead_s} s before its end; it will be told {signal_s} s before, and may lose steps"
        )
    stages = [s.model_copy(update={"signal_s": signal_s}) if s.name == "train" else s for s in plan.stages]
    return plan.model_copy(update={"stages": stages, "warnings": warnings})
