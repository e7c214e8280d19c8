"""Data sets of the hub, brought by the real libraries: at which commit, where to, and what stops a submission."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcsft.hub.fetched import Fetched, FetchedData, local_spec
from hpcsft.spec import load_spec
from tests.hub.conftest import DATA, LoginNode
from tests.hub.server import GIVEN
from tests.launch.command import ROOT

NAME = f"hub:{DATA}"


@pytest.fixture
def node(login_node, tiny_model) -> LoginNode:
    """A login node whose spec names the data on the hub; the model is a folder."""
    login_node.values["model"]["path"] = str(tiny_model)
    login_node.values["data"]["train"] = [NAME]
    return login_node


def test_a_data_set_is_prepared_and_kept_at_its_commit(node, ultrachat_file):
    fetched = node.fetch()
    data = fetched["data"][NAME]
    commit = node.hub.repository("datasets", DATA).branches["main"]
    assert data["revision"] == commit
    assert data["cache"] == str(node.home / "hf" / "datasets")
    assert Path(data["folder"]).name == commit and data["folder"].startswith(data["cache"])
    assert data["size_bytes"] > 5000
    assert f"{NAME}: at {commit[:12]}" in fetched["said"][-1]

    node.hub.stop()
    again = node.fetch()
    assert again["data"] == fetched["data"]
    assert "the hub does not answer" in again["said"][-1] and "this is what the cache holds" in again["said"][-1]


def test_a_look_does_not_prepare_it(node):
    said = node.look()["said"]
    assert said[0].startswith(f"{NAME}: at ") and said[0].endswith("of files, fetched and prepared at submission")
    assert not (node.home / "hf" / "datasets").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:owner/none", "the hub has no such repository, or does not show it to you"),
        (f"{NAME}@v9", "the repository has no such revision"),
    ],
)
def test_a_look_finds_what_the_hub_does_not_have(node, name, message):
    node.values["data"]["train"] = [name]
    for what in ("look", "fetch"):
        assert node.refused(what)[0] == f"error: data.train: {name}: {message}"


def test_a_split_that_does_not_exist(node):
    node.values["data"]["train"] = [f"{NAME}:sft"]
    assert "Unknown split \"sft\". Should be one of ['train']" in node.refused()[0]


def test_the_default_configuration_is_meant_whatever_else_is_in_the_cache(node, ultrachat_file):
    card = b"""---
configs:
- {config_name: plain, data_files: plain.jsonl, default: true}
- {config_name: short, data_files: short.jsonl}
---
"""
    rows = ultrachat_file.read_bytes()
    short = b"".join(rows.splitlines(keepends=True)[:5])
    node.hub.repository("datasets", "owner/two").commit({"README.md": card, "plain.jsonl": rows, "short.jsonl": short})
    node.values["data"].update(train=["hub:owner/two"], validation=["hub:owner/two/short"])
    fetched = {name: FetchedData.model_validate(data) for name, data in node.fetch()["data"].items()}
    assert {name: data.config for name, data in fetched.items()} == {
        "hub:owner/two": "plain",
        "hub:owner/two/short": "short",
    }
    local = local_spec(load_spec(str(node.spec_file())), Fetched(data=fetched)).data
    count = (
        "from hpcsft.data.readers import index_file; import sys; print([index_file(n, 8).rows for n in sys.argv[1:]])"
    )
    node.variables.update(HF_HUB_OFFLINE="1", PYTHONPATH=str(ROOT))
    assert node.run("-c", count, *local.train, *local.validation).stdout.strip() == "[120, 5]"


def test_rows_that_are_no_conversations(node):
    rows = "".join(json.dumps({"text": f"row {number}"}) + "\n" for number in range(30))
    node.hub.repository("datasets", "owner/plain").commit({"train.jsonl": rows.encode()})
    node.values["data"]["train"] = ["hub:owner/plain"]
    error, hint = node.refused()
    assert error.startswith("error: data.train: hub:owner/plain/default@") and "row 1: " in error
    assert hint == "hint: see data.format in the README"


def test_nothing_in_the_cache_and_no_network(node):
    node.hub.stop()
    error, hint = node.refused()
    assert error.startswith(f"error: data.train: {NAME}: the hub does not answer (") and "and it is not in" in error
    assert "fetch it where there is a network" in hint


def test_a_gated_data_set(node):
    node.hub.repository("datasets", DATA).gated = True
    assert "gated" in node.refused()[0]
    node.variables["HF_TOKEN"] = GIVEN
    assert NAME in node.fetch()["data"]


def test_the_process_may_end_badly(node):
    (node.home / "datasets.py").write_text("raise SystemExit(7)")
    node.variables["PYTHONPATH"] = str(node.home)
    error, hint = node.refused()
    assert error == "error: data.train: the data sets cannot be fetched: the process ended with 7"
    assert hint == "hint: its last words stand above"
