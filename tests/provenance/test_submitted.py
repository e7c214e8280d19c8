"""Guards provenance.json: it says who, where, by which command and with what, and holds no secret."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

from hpcsft.owner import ThisCluster
from hpcsft.provenance.submitted import collect_provenance
from hpcsft.records import read_json
from hpcsft.spec import parse_spec
from tests.launch.command import ROOT
from tests.prepared import new_run

CANARY = "canary-0123456789abcdef"


def test_what_a_submission_writes_down():
    found = collect_provenance(["submit", "a.json", "--set", "seed=1"], ROOT, ThisCluster("big", "22.05.8"))
    assert found["command"] == ["submit", "a.json", "--set", "seed=1"]
    assert found["cluster"] == {"name": "big", "slurm_version": "22.05.8"}
    assert (found["host"], found["user"]) == (socket.gethostname(), pwd.getpwuid(os.getuid()).pw_name)
    assert found["folder"] == os.getcwd() and len(found["code_digest"]) == 64
    assert found["packages"]["torch"] == found["installed"]["torch"]


def test_a_run_has_it_and_a_copy_of_the_code_that_can_submit_itself(spec_values, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", CANARY)
    spec_values["notify"] = {"webhook": f"https://hooks.example.org/{CANARY}"}
    run = new_run(spec_values)
    found = read_json(run.provenance)
    assert found["cluster"] is None and found["command"] == ["pytest"]
    assert CANARY not in run.provenance.read_text()
    assert {path.name for path in run.code.iterdir()} == {"hpcsft", "jobs", "launch"}
    assert (run.code / "launch" / "submit.py").read_bytes() == (ROOT / "launch" / "submit.py").read_bytes()
    assert not list(Path(run.code).rglob("*.pyc"))


def test_a_secret_on_the_command_line_is_hidden(spec_values, monkeypatch):
    from hpcsft.cluster.submit import prepare_run
    from hpcsft.plan import make_plan
    from hpcsft.rundir import RunDir

    monkeypatch.setenv("SOME_API_KEY", CANARY)
    spec = parse_spec(spec_values)
    run = RunDir(spec.run_path)
    prepare_run(spec, make_plan(spec), run, ["submit", "--set", f"cluster.env.X={CANARY}", "--set", "a.token=12345678"])
    words = read_json(run.provenance)["command"]
    assert words == ["submit", "--set", "cluster.env.X=[secret]", "--set", "a.token=[secret]"]
