"""Slurm's own verdict: read as it prints it, put together with what the limits explain, and asked for real."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpcsft.errors import ClusterError
from hpcsft.preflight.finding import Finding
from hpcsft.preflight.trial import Verdict, estimates, read_verdict, refusals, try_stages
from hpcsft.preflight.verdicts import explained
from hpcsft.spec import parse_spec
from tests.preflight.made import planned

ACCEPTED = "sbatch: Job 14 to start at 2026-01-31T11:30:54 using 8 processors on nodes n[1-2] in partition low\n"
BUSY = "allocation failure: Requested node configuration is not available\n"


def test_what_slurm_prints_is_understood():
    start = {"starts": "2026-01-31T11:30:54", "nodes": "n[1-2]", "partition": "low"}
    assert read_verdict("train", 0, ACCEPTED) == Verdict(stage="train", **start)
    refused = read_verdict(
        "train",
        1,
        "sbatch: error: invalid partition specified: nope\nallocation failure: Invalid partition name specified\n",
    )
    assert refused.refused == "invalid partition specified: nope; Invalid partition name specified"
    assert not refused.may_only_wait and read_verdict("train", 1, BUSY).may_only_wait
    assert read_verdict("train", 1, "").refused == "exit status 1"
    plugin = read_verdict("train", 1, "sbatch: error: Please name an account.\nsbatch: error: \n")
    assert plugin.refused == "Please name an account"


@pytest.mark.parametrize("words", ["Unable to contact slurm controller (connect failure)", "Socket timed out"])
def test_silence_is_no_refusal(words):
    with pytest.raises(ClusterError, match="Slurm does not answer"):
        read_verdict("train", 1, f"sbatch: error: {words}\n")


def test_refusals_with_the_same_reason_are_one():
    spec, _ = planned(cluster={"sbatch": {"exclude": "n9"}})
    verdicts = [Verdict(stage=stage, refused="Invalid node name specified") for stage in ("preprocess", "train")]
    (finding,) = refusals(spec, verdicts)
    assert finding.lines()[0] == "error: cluster.sbatch: Slurm refuses preprocess, train: Invalid node name specified"
    assert not finding.forcible


@pytest.mark.parametrize(
    ("reason", "where", "hint", "forcible"),
    [
        ("Requested node configuration is not available", "cluster.train", "no node can take it", True),
        ("Invalid qos specification", "cluster.qos", "sinfo", False),
        ("Job violates accounting/QOS policy (job submit limit, ...)", "cluster.qos", "sacctmgr show qos", True),
        ("something new", "cluster.train", "sinfo", False),
    ],
)
def test_a_refusal_names_field_and_way_out(reason, where, hint, forcible):
    spec, _ = planned()
    (finding,) = refusals(spec, [Verdict(stage="train", refused=reason)])
    assert (finding.where, finding.forcible) == (where, forcible) and hint in str(finding.hint)


LIMIT = Finding(level="error", where="cluster.partition", message="no partition 'x'", forcible=True)
AWAY = Finding(level="warning", where="cluster.train.nodes", message="1 of 4 can be used now")


def test_the_limits_explain_what_slurm_refuses():
    refused = Verdict(stage="train", refused="Invalid partition name specified")
    (finding,) = explained(refused, [LIMIT], False) or []
    assert finding.message == "no partition 'x' (Slurm: Invalid partition name specified)" and not finding.forcible
    busy = read_verdict("train", 1, BUSY)
    nodes = LIMIT.model_copy(update={"where": "cluster.train.nodes"})
    (finding,) = explained(busy, [nodes], False) or []
    assert finding.forcible  # sbatch itself may take it
    assert explained(Verdict(stage="train"), [LIMIT], False) == [LIMIT]


def test_a_reason_is_not_told_of_another_field():
    """Both are wrong then, and both are told."""
    other = Verdict(stage="train", refused="Invalid node name specified")
    assert explained(other, [LIMIT], False) is None


def test_nodes_that_are_away_make_no_error_of_a_trial():
    busy, other = read_verdict("train", 1, BUSY), Verdict(stage="train", refused="Invalid license specification")
    assert explained(busy, [AWAY], True) == [AWAY]
    assert explained(busy, [AWAY], False) is None and explained(other, [AWAY], True) is None


def test_estimates_say_what_they_are_worth():
    _, plan = planned()
    verdicts = [read_verdict(stage, 0, ACCEPTED) for stage in ("preprocess", "train", "report")]
    first, others = estimates(verdicts, plan)
    assert first.message == "Slurm would start preprocess at 2026-01-31 11:30 on n[1-2]"
    assert others.message.startswith("each waits for the stage before it; were they ready now, Slurm would start train")
    assert estimates([Verdict(stage="train", refused="x")], plan) == []


@pytest.mark.parametrize(
    "reason", ["Requested nodes are busy", "Required node not available (down, drained or reserved)"]
)
def test_a_job_that_sbatch_takes_and_lets_wait_is_no_error(reason):
    (finding,) = refusals(planned()[0], [Verdict(stage="train", refused=reason)])
    assert finding.level == "warning" and finding.message.endswith(reason)


@pytest.mark.slurm
def test_a_real_slurm_is_asked_and_keeps_nothing(slurm, spec_values, tmp_path: Path):
    spec_values["cluster"] |= {"kind": "slurm", "train": {"nodes": 2, "tasks_per_node": 2}}
    spec, plan = planned_as(spec_values)
    began = time.monotonic()
    verdicts = {verdict.stage: verdict for verdict in try_stages(spec, plan, plan.stage_names)}
    assert time.monotonic() - began < 5
    assert list(verdicts) == plan.stage_names and not any(verdict.refused for verdict in verdicts.values())
    assert verdicts["train"].nodes and verdicts["train"].starts
    assert slurm.run("squeue", "-h", "-t", "all", "-n", "tiny.train").stdout == ""
    assert not Path(spec.runs_dir).exists()


@pytest.mark.slurm
def test_a_real_slurm_refuses_each_stage_in_its_own_words(slurm, spec_values):
    spec_values["cluster"] |= {"kind": "slurm", "sbatch": {"licenses": "matlab"}, "generate": {"partition": "nope"}}
    spec, plan = planned_as(spec_values)
    refused = {verdict.stage: verdict.refused or "" for verdict in try_stages(spec, plan, ["train", "generate"])}
    assert refused["train"] == "Invalid license specification" and "nope" in refused["generate"]


def planned_as(values):
    from hpcsft.plan import make_plan

    spec = parse_spec(values)
    return spec, make_plan(spec)
