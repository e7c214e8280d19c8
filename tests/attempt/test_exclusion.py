"""Guards which nodes the next attempt does without: bad ones, besides the user's own, and never so many that the job
would wait for ever.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsft import slurm_client
from hpcsft.attempt.exclusion import Exclusion, choose_exclusion, exclude, plan_exclusion
from hpcsft.slurm_client import partition_nodes, query_job
from tests import waiting
from tests.attempt.made import NO_SLURM, empty_run, journal, token
from tests.cluster.minislurm import MiniSlurm

NODES = ["n1", "n2", "n3", "n4"]


@pytest.mark.parametrize(
    ("unfit", "excluded", "num_nodes", "nodes"),
    [
        ([], [], 2, ()),
        ([], ["n4"], 2, ()),
        (["n1"], [], 2, ("n1",)),
        (["n1"], ["n4"], 2, ("n4", "n1")),
        (["n1"], ["n1"], 2, ()),
        (["n1", "n2"], ["n1"], 2, ("n1", "n2")),
        (["n1", "n2", "n3"], [], 1, ("n1", "n2", "n3")),
    ],
)
def test_unfit_nodes_are_excluded_besides_those_that_are(unfit, excluded, num_nodes, nodes):
    assert choose_exclusion(unfit, excluded, NODES, "low", num_nodes) == Exclusion(nodes)


def test_too_few_nodes_left_are_told_with_their_names():
    chosen = choose_exclusion(["n1", "n2"], ["n4"], NODES, "low", 2)
    assert chosen.nodes == ()
    assert chosen.impossible == "without n4, n1, n2 the partition low has 1 of 4 nodes left, and the job needs 2"


@pytest.mark.parametrize(
    ("constraint", "nodes"),
    [("", NODES), ("big", ["n1", "n2"]), ("big&ib", ["n1"]), ("big|small", NODES), ("[big*2&ib]", NODES), ("b", [])],
)
def test_nodes_that_the_constraint_does_not_allow_are_none_that_are_left(monkeypatch, constraint, nodes):
    """With them counted the job would be left in the queue for ever, as BadConstraints."""
    listed = "n1|big,ib\nn2|big\nn2|big\nn3|(null)\nn4|small \n"
    monkeypatch.setattr(slurm_client, "run_client", lambda *_: listed)
    assert partition_nodes("low", constraint) == nodes


def test_the_constraint_of_a_job_is_minded(monkeypatch):
    answers = {
        "show": "JobId=44 JobState=RUNNING Partition=low NumNodes=2-2 ExcNodeList=(null) Features=big DelayBoot=0",
        "--noheader": "n1|big\nn2|big\nn3|(null)\nn4|(null)\n",
    }
    monkeypatch.setattr(slurm_client, "run_client", lambda *command, **_: answers[command[1]])
    assert plan_exclusion(token(), ["n1"]).impossible.startswith("without n1 the partition low has 1 of 2 nodes left")


def test_where_nobody_answers_the_job_goes_on_with_all_nodes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", NO_SLURM)
    run = empty_run(tmp_path)
    assert plan_exclusion(token(), ["n1"]) == Exclusion()
    assert "nobody can be asked which nodes to exclude: scontrol does not answer" in capsys.readouterr().out
    exclude(token(), Exclusion(("n1",)), journal(run))
    assert "Slurm did not exclude n1: scontrol does not answer" in capsys.readouterr().out
    (row,) = journal(run).rows()
    assert (row["event"], row["nodes"]) == ("excluded", ["n1"]) and "does not answer" in row["refused"]


@pytest.mark.slurm
@pytest.mark.parametrize("options", [("--nodes=2",), ("--array=0-1",)], ids=["job", "task of an array"])
def test_slurm_takes_an_exclusion_of_a_job_that_is_back_in_the_queue(slurm: MiniSlurm, tmp_path: Path, options) -> None:
    run = empty_run(tmp_path)
    job_id = slurm.submit("sleep 100", "--requeue", "--exclude=n4", "--partition=low", *options)
    own = f"{job_id}_1" if "--array=0-1" in options else job_id
    try:
        waiting.wait_for("the start of the job", lambda: query_job(own).running)
        planned = plan_exclusion(token(own), ["n1"])
        assert planned == Exclusion(("n4", "n1"))
        slurm.run("scontrol", "requeue", own)
        exclude(token(own), planned, journal(run))
        assert "refused" not in journal(run).rows()[-1]
        assert sorted(query_job(own).excluded.split(",")) == ["n1", "n4"]
        assert plan_exclusion(token(own), ["n1"]) == Exclusion(), "it is excluded already"
        assert partition_nodes("low,high") == ["n1", "n2", "n3", "n4"]
        exclude(token(own), Exclusion(("nowhere",)), journal(run))
        assert "Invalid node name" in journal(run).rows()[-1]["refused"]
    finally:
        slurm.run("scancel", job_id)
