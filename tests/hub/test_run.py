"""A whole run of names on the hub, on a machine without a network from the moment that it is submitted.

Guards jobs that reach for the hub or anything else on the internet: on a compute node that hangs or fails, and at the
end of a night in the queue.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcsft.hub.fetched import read_fetched
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from tests.benchmark.conftest import rows, task_folder  # noqa: F401 (fixtures)
from tests.hub.conftest import DATA, MODEL, LoginNode
from tests.hub.server import GIVEN
from tests.launch.command import ROOT

LONG_S = 280
SUBMIT = ROOT / "launch" / "submit.py"


@pytest.fixture
def node(login_node, prompts_file) -> LoginNode:
    """A login node whose spec names model, judge and data on the hub."""
    login_node.values["evaluate"] = {
        "prompts": str(prompts_file),
        "shards": 1,
        "checkpoints": ["epoch-1"],
        "generation": {"max_new_tokens": 4},
        "checks": {"echo": 1, "empty": 1, "leftover": 1},
        "judge": {"kind": "local", "model": f"hub:{MODEL}@main"},
    }
    login_node.values["train"].update(epochs=1, trackers=["tensorboard", "wandb"])
    login_node.values["data"].update(train=[f"hub:{DATA}"], sample=40)
    login_node.values["cluster"]["train"]["tasks_per_node"] = 2
    login_node.variables.update(HF_TOKEN=GIVEN, XDG_STATE_HOME=str(login_node.home / "state"))
    return login_node


@pytest.fixture
def wall() -> list[str]:
    """What a command begins with that is to have no network."""
    command = ["unshare", "-n"]
    if not all(map(shutil.which, ("unshare", "ip"))) or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("needs the right to make a network namespace")
    return [*command, sys.executable, str(Path(__file__).with_name("walled.py"))]


def test_no_stage_of_a_run_needs_or_tries_the_network(node, wall, task_folder, tmp_path):  # noqa: F811
    node.values["benchmark"] = {"tasks": ["choice"], "include_path": str(task_folder), "limit": 4}
    node.fetch()
    node.hub.stop()
    record = tmp_path / "reached-for"
    command = [*wall, record, sys.executable, SUBMIT, node.spec_file(), "--watch"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=node.environment(), timeout=LONG_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunDir(next(Path(node.values["runs_dir"]).glob("tiny-*")))
    assert {status.stage: status.state for status in run.read_statuses()} == dict.fromkeys(
        ("preprocess", "train", "generate", "benchmark", "judge", "report"), "done"
    )
    asked = [line for line in record.read_text().splitlines() if f":{node.hub.url.rpartition(':')[2]}" not in line]
    assert asked == []  # the submission alone has asked for the hub
    assert GIVEN not in "".join(path.read_text(errors="replace") for path in run.path.rglob("*") if path.is_file())


def test_a_run_keeps_its_commit_and_resuming_brings_back_what_is_gone(node, tiny_model):
    """The same spec is the same run though the branch has moved; the spec in it is the one that was given."""

    def done(script: str, *arguments: object) -> str:
        ended = node.run(ROOT / "launch" / script, *arguments, timeout_s=LONG_S)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    run = RunDir(json.loads(done("submit.py", node.spec_file(), "--json"))["run_dir"])
    try:
        before = read_fetched(run)
        assert read_json(run.spec)["model"]["path"] == f"hub:{MODEL}"
        moved = node.hub.add_folder("models", MODEL, tiny_model, **{"README.md": b"# newer"})
        assert json.loads(done("submit.py", node.spec_file(), "--json"))["run_dir"] == str(run.path)
        assert read_fetched(run) == before

        done("cancel.py", run.path, "--yes")
        shutil.rmtree(node.cache)
        done("resume.py", run.path)
        assert read_fetched(run) == before and moved != before.models[f"hub:{MODEL}"].revision
        assert all(model.is_whole() for model in before.models.values())
    finally:
        done("cancel.py", run.path, "--yes")


def test_a_refused_name_leaves_no_run_behind(node):
    node.values["evaluate"]["judge"]["model"] = "hub:owner/none"
    done = node.run(SUBMIT, node.spec_file())
    assert done.returncode == 2
    assert "error: evaluate.judge.model: hub:owner/none: the hub has no such repository" in done.stderr
    assert not Path(node.values["runs_dir"]).exists()
