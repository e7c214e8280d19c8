"""Where the ranks of one attempt meet: at the same place on every node, and at another than the attempt before."""

from __future__ import annotations

import os

import pytest

from hpcsft.attempt.identity import TaskIdentity
from hpcsft.plan import make_plan
from hpcsft.records import read_json, write_json
from hpcsft.spec import parse_spec
from hpcsft.stage import StageContext
from hpcsft.train.distributed import export_environment
from tests.attempt.made import empty_run

JOB = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7", "MASTER_ADDR": "stale", "MASTER_PORT": "1"}


@pytest.fixture
def meeting(tmp_path, monkeypatch):
    """Exports the environment of one rank and returns where it meets the others."""

    def export(network=None, job_id="44", restart=0, rank=0, **env):
        for name in list(os.environ):
            if name.startswith(("SLURM_", "SUBMITIT_", "MASTER_", "HPCSFT_")):
                monkeypatch.delenv(name)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        run = empty_run(tmp_path)
        values = read_json(run.spec)
        values["cluster"]["network"] = network or {}
        spec = parse_spec(values)
        write_json(run.spec, spec)
        plan = make_plan(spec)
        task = TaskIdentity(job_id, restart, rank, rank, 2)
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", dict(os.environ))
            export_environment(StageContext(run, spec, plan, plan.stage("train"), 0, task))
            return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])

    return export


def test_every_rank_of_an_attempt_meets_at_the_first_node(meeting):
    address, port = meeting(**JOB)
    assert address == "10.0.0.7" and 20000 <= port <= 31999
    assert meeting(rank=1, **JOB) == (address, port)
    assert meeting(restart=1, **JOB)[1] != port


def test_with_an_interface_at_its_address_as_the_batch_script_found_it(meeting):
    env = {**JOB, "HPCSFT_MASTER_ADDR": "10.9.0.7"}
    assert meeting({"interface": "ib0"}, **env)[0] == "10.9.0.7"
    assert meeting(**env)[0] == "10.0.0.7", "what another job exported is not for this one"


def test_ports_are_those_of_the_spec(meeting):
    ports = {meeting({"ports": [30000, 30003]}, restart=restart, **JOB)[1] for restart in range(20)}
    assert ports == {30000, 30001, 30002, 30003}


def test_on_one_machine_the_ranks_meet_there(meeting):
    local = {"SUBMITIT_EXECUTOR": "local", "HPCSFT_MASTER_ADDR": "10.9.0.7"}
    assert meeting({"interface": "ib0"}, "local-9", **local)[0] == "127.0.0.1"
