"""Guards what `reproduce` calls a change, and what it promises of the result."""

from __future__ import annotations

import pytest

from hpcsft.provenance.changes import (
    Change,
    code_changes,
    commit_changes,
    expectation,
    hub_changes,
    input_changes,
    new_inputs,
    package_changes,
    python_changes,
    slurm_changes,
)
from hpcsft.provenance.inputs import HubData, InputFile

DATA = InputFile(where="data.train", path="/d/a.jsonl", num_bytes=1000, mtime_ns=5, sha256="a" * 64)
PROMPTS = InputFile(where="evaluate.prompts", path="/d/p.json", num_bytes=10, mtime_ns=5, sha256="b" * 64)
CPU = {"world_size": 2, "machine": {"cpu": "AMD EPYC", "gpus": []}}
GPU = {"world_size": 2, "machine": {"cpu": "AMD EPYC", "gpus": ["NVIDIA A100", "NVIDIA A100"]}}


def lines(changes) -> list[str]:
    return [change.line for change in changes]


def test_packages():
    then, now = {"torch": "2.6", "rich": "13", "peft": None, "numpy": "2"}, {"torch": "2.7", "rich": "14", "more": "1"}
    found = list(package_changes(then, now))
    assert [(change.name, change.then, change.now, change.weights) for change in found] == [
        ("torch", "2.6", "2.7", True),
        ("rich", "13", "14", False),
        ("numpy", "2", None, True),
    ]
    assert found[-1].line == "package      numpy: 2 -> none"


def test_python():
    assert list(python_changes({"version": "3.11.7", "executable": "/a"}, {"version": "3.11.7"})) == []
    assert lines(python_changes({"version": "3.10.1"}, {"version": "3.11.7"})) == [
        "python       version: 3.10.1 -> 3.11.7"
    ]


def test_code():
    then = {f"hpcsft/{name}.py": "1" for name in "abcdefgh"}
    now = {**dict.fromkeys(then, "2"), "jobs/new.py": "1"}
    del now["hpcsft/a.py"]
    assert lines(code_changes(then, now)) == [
        "code         changed: hpcsft/b.py, hpcsft/c.py, hpcsft/d.py, hpcsft/e.py, hpcsft/f.py and 2 more",
        "code         gone: hpcsft/a.py",
        "code         new: jobs/new.py",
    ]
    assert list(code_changes(then, then)) == []


def test_another_commit_of_the_same_files_changes_no_result():
    [change] = commit_changes("0123456789abcdef", None)
    assert change.line == "code         commit: 0123456789 -> none" and not change.weights
    assert list(commit_changes("a", "a")) == []


def test_inputs_by_size_and_time():
    now = {DATA.path: DATA.model_copy(update={"num_bytes": 1001}), PROMPTS.path: None}
    found = list(input_changes([DATA, PROMPTS], now, None))
    assert lines(found) == [
        "input        /d/a.jsonl (data.train): 1,000 bytes -> 1,001 bytes",
        "input        /d/p.json (evaluate.prompts): there -> gone",
    ]
    assert [change.weights for change in found] == [True, False]
    touched = {DATA.path: DATA.model_copy(update={"mtime_ns": 6})}
    assert lines(input_changes([DATA], touched, None)) == [
        "input        /d/a.jsonl (data.train): as it was -> written since"
    ]
    assert list(input_changes([DATA], {DATA.path: DATA}, None)) == []


def test_inputs_by_content():
    touched = {DATA.path: DATA.model_copy(update={"mtime_ns": 6})}
    assert list(input_changes([DATA], touched, {DATA.path: "a" * 64})) == [], "copied, not changed"
    assert lines(input_changes([DATA], {DATA.path: DATA}, {DATA.path: "c" * 64})) == [
        f"input        /d/a.jsonl (data.train): sha256 {'a' * 12} -> sha256 {'c' * 12}"
    ]
    assert "cannot be read" in lines(input_changes([DATA], {DATA.path: DATA}, {DATA.path: None}))[0]
    without = DATA.model_copy(update={"sha256": None})
    assert "written since" in lines(input_changes([without], touched, {DATA.path: "c" * 64}))[0]


def test_a_glob_that_matches_more():
    assert lines(new_inputs([DATA], {DATA.path: "data.train", "/d/b.jsonl": "data.train"})) == [
        "input        /d/b.jsonl (data.train): not there -> there"
    ]


def test_data_of_the_hub_without_a_commit_may_move():
    hub = HubData(where="data.train", name="hub:a/b", revision=None, fingerprint="f")
    assert [change.weights for change in hub_changes([hub])] == [True]
    assert list(hub_changes([hub.model_copy(update={"revision": "0" * 40})])) == []


def test_slurm_changes_no_result():
    then, now = {"name": "a", "slurm_version": "22.05.8"}, {"name": "b", "slurm_version": "22.05.8"}
    assert [(c.line, c.weights) for c in slurm_changes(then, now)] == [("slurm        cluster: a -> b", False)]
    assert len(list(slurm_changes(then, None))) == 2 and list(slurm_changes(None, None)) == []


@pytest.mark.parametrize(
    ("attempts", "says"),
    [
        ([CPU, CPU], "bit for bit the same on 2 ranks on machines of the same kind (AMD EPYC)"),
        ([], "bit for bit the same on 2 ranks on machines of the same kind"),
        ([GPU], "bit for bit where the kernels of the GPUs (NVIDIA A100) are deterministic"),
        (
            [CPU, {**CPU, "world_size": 4}],
            "not bit for bit: this run went on with another number of ranks on its way (2 and 4)",
        ),
    ],
)
def test_what_can_be_expected(attempts, says):
    assert says in expectation([], 2, attempts)


def test_what_can_be_expected_after_changes():
    harmless = Change(what="slurm", name="version", then="1", now="2", weights=False)
    harmful = [harmless.model_copy(update={"what": what, "weights": True}) for what in ("code", "package", "package")]
    assert expectation([harmless], 1, [CPU]).endswith("on 1 rank on machines of the same kind (AMD EPYC)")
    assert expectation([harmless, *harmful], 1, [CPU]).endswith("changed since: code, package")
