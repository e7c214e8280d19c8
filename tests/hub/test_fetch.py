"""The real client against a real server: what is fetched, what is not, and what a user reads when it cannot be.

Guards a day in the queue of a model that no compute node can find, gigabytes that a look downloads, a run whose model
changes when somebody pushes to main, and a token or code that reaches where it must not.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hpcsft.hub.client import _no_room
from hpcsft.model_folder.check import check_model
from tests.conftest import build_tiny_model
from tests.hub.conftest import MODEL, LoginNode
from tests.hub.server import GIVEN

NAME = f"hub:{MODEL}"
NEEDED = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def commit_of(node: LoginNode) -> str:
    return node.hub.repository("models", MODEL).branches["main"]


def test_a_model_is_fetched_at_its_commit_and_without_code(login_node, tiny_model):
    fetched = login_node.fetch()
    model = fetched["models"][NAME]
    commit = commit_of(login_node)
    assert model["revision"] == commit
    assert Path(model["folder"]) == login_node.cache / "models--owner--tiny" / "snapshots" / commit
    assert set(model["files"]) == NEEDED == set(os.listdir(model["folder"])) == set(login_node.hub.downloads())
    assert (Path(model["folder"]) / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    assert f"{NAME}: at {commit[:12]}, 0.18 MB in {model['folder']}" in fetched["said"]


def test_a_look_tells_all_of_a_model_and_fetches_no_weights(login_node, tiny_model):
    found = login_node.look()
    assert found["facts"]["model"] == check_model(str(tiny_model), "model.path").model_dump()
    assert not list(login_node.cache.rglob("model.safetensors")) and not os.path.exists(found["model"])
    assert "0.18 MB in 5 files, 0.18 MB not in" in found["said"][0]
    login_node.fetch()
    login_node.hub.requests.clear()
    assert login_node.look()["model"].startswith(str(login_node.cache))
    assert not login_node.hub.downloads()


def test_a_header_longer_than_the_first_request_is_read_whole(login_node, monkeypatch, tiny_model):
    from hpcsft.hub import outline

    monkeypatch.setattr(outline, "FIRST_BYTES", 64)
    data = (tiny_model / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    parts = outline._safetensors(lambda start, end: data[start:end], len(data))
    assert b"".join(part for _, part in parts) == data[:header]


def test_pickled_weights_are_outlined_as_well_and_fetched_on_where_the_connection_broke(
    login_node, conversations, tmp_path
):
    import torch
    from safetensors.torch import load_file

    folder = build_tiny_model(tmp_path / "old", conversations, intermediate_size=60_000)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert (folder / "pytorch_model.bin").stat().st_size > 40_000_000  # so that a part of it is left out
    login_node.hub.add_folder("models", "owner/old", folder)
    found = login_node.look(path="hub:owner/old")
    assert found["facts"]["model"] == check_model(str(folder), "model.path").model_dump()
    assert not list(login_node.cache.rglob("*.bin"))
    login_node.hub.requests.clear()
    login_node.hub.break_off_after = 30_000_000
    fetched = login_node.fetch(path="hub:owner/old")["models"]["hub:owner/old"]["folder"]
    assert (Path(fetched) / "pytorch_model.bin").read_bytes() == (folder / "pytorch_model.bin").read_bytes()
    answers = [status for method, path, status, _ in login_node.hub.requests if path.endswith(".bin")]
    assert answers == [200, 200, 206]  # what it is, a part, and the rest


def test_a_model_with_code_of_its_own_is_refused_before_anything_is_fetched(login_node, tiny_model):
    config = json.loads((tiny_model / "config.json").read_text())
    config.update(model_type="new", auto_map={"AutoModelForCausalLM": "evil.Model"}, architectures=["NewForCausalLM"])
    commit = login_node.hub.add_folder(
        "models", "owner/new", tiny_model, **{"config.json": json.dumps(config).encode()}
    )
    error, hint = login_node.refused("look", path=f"hub:owner/new@{commit}")
    assert error.endswith("hub:owner/new: NewForCausalLM needs code of its own (trust_remote_code)")
    assert "never runs the code of a model's folder" in hint
    assert not list(login_node.cache.rglob("*.safetensors"))


def test_the_cache_alone_will_do_and_that_is_said(login_node):
    folder = login_node.fetch()["models"][NAME]["folder"]
    login_node.hub.stop()
    again = login_node.fetch()
    assert again["models"][NAME]["folder"] == folder
    assert "the hub does not answer" in again["said"][0] and "this is what the cache holds" in again["said"][0]
    login_node.variables["HF_HUB_OFFLINE"] = "1"
    assert "the hub is not asked, because HF_HUB_OFFLINE is set" in login_node.look()["said"][0]


def test_a_branch_that_moves_is_followed_by_a_new_run_only(login_node, tiny_model):
    """With the record of a run directory the old commit is taken, also when the hub is silent."""
    from hpcsft.hub.fetched import Fetched, read_fetched
    from hpcsft.records import write_json
    from hpcsft.rundir import RunDir
    from hpcsft.spec import load_spec

    first = login_node.fetch()
    spec = load_spec(str(login_node.spec_file()))
    moved = login_node.hub.add_folder("models", MODEL, tiny_model, **{"README.md": b"# newer"})
    assert login_node.fetch()["models"][NAME]["revision"] == moved
    run = RunDir(spec.run_path)
    run.path.mkdir(parents=True)
    write_json(run.fetched, Fetched.model_validate(first))
    assert login_node.fetch()["models"] == first["models"]
    os.remove(
        login_node.cache / "models--owner--tiny" / "snapshots" / first["models"][NAME]["revision"] / "config.json"
    )
    assert not read_fetched(run).models[NAME].is_whole()
    assert login_node.fetch()["models"] == first["models"]
    assert read_fetched(run).models[NAME].is_whole()


def test_a_commit_can_be_named(login_node, tiny_model):
    first = commit_of(login_node)
    login_node.hub.add_folder("models", MODEL, tiny_model, **{"README.md": b"# newer"})
    assert login_node.fetch(path=f"{NAME}@{first}")["models"][f"{NAME}@{first}"]["revision"] == first


def test_a_model_of_which_only_a_part_is_here(login_node):
    folder = Path(login_node.fetch()["models"][NAME]["folder"])
    (folder / "model.safetensors").unlink()
    login_node.hub.stop()
    error, hint = login_node.refused()
    assert error.startswith(f"error: model.path: {NAME}: the hub does not answer")
    assert error.endswith(f"{folder} is not whole: the weights missing")
    assert hint.startswith("hint: the same command fetches the rest when the hub answers; or fetch it where there is")


def test_no_network_and_nothing_in_the_cache(login_node):
    login_node.hub.stop()
    error, hint = login_node.refused("look")
    assert error.startswith(f"error: model.path: {NAME}: the hub does not answer (")
    assert error.endswith(f"and it is not in {login_node.cache}")
    assert "give the folder" in hint and "copy the cache" in hint


def test_a_hub_that_is_out_of_order_is_as_good_as_none(login_node):
    login_node.hub.refuse_with = 500
    assert "the hub answers with an error (500), and it is not in" in login_node.refused()[0]


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("hub:owner/none", "the hub has no such repository, or does not show it to you", "huggingface.co/owner/none"),
        (f"{NAME}@v9", "the repository has no such revision", "huggingface.co/owner/tiny/tree/main lists its branches"),
        (f"{NAME}@{'0' * 40}", "the repository has no such revision", "without @REVISION it is main"),
        ("hub:owner/a--b", "Cannot have -- or .. in repo_id", "a name on the hub is as in its address"),
    ],
)
def test_what_the_hub_does_not_have(login_node, path, message, hint):
    error, advice = login_node.refused("look", path=path)
    assert error.startswith(f"error: model.path: {path}: {message}")
    assert hint in advice


def test_a_gated_model_says_where_its_licence_is(login_node):
    login_node.hub.repository("models", MODEL).gated = True
    error, hint = login_node.refused()
    assert error == f"error: model.path: {NAME}: gated: the hub gives it only to those who have accepted its licence"
    assert "accept its licence at https://huggingface.co/owner/tiny" in hint and "HF_TOKEN" in hint
    login_node.variables["HF_TOKEN"] = GIVEN
    assert login_node.fetch()["models"][NAME]["revision"] == commit_of(login_node)


def test_a_private_model_is_found_with_the_users_token(login_node):
    login_node.hub.repository("models", MODEL).private = True
    assert "does not show it to you" in login_node.refused()[0]
    login_node.variables["HF_TOKEN"] = GIVEN
    fetched = login_node.fetch()
    assert GIVEN not in str(fetched)


def test_a_repository_without_weights(login_node, tiny_model):
    files = {"config.json": b"{}", "a.Q4_0.gguf": b"", "a.Q8_0.gguf": b""}
    login_node.hub.repository("models", "owner/empty").commit(files)
    error, hint = login_node.refused(path="hub:owner/empty")
    assert error == "error: model.path: hub:owner/empty: no weights in it that can be read here"
    assert "one GGUF file" in hint


def test_a_disk_that_is_too_small_is_known_before(tmp_path):
    problem = _no_room(tmp_path / "not" / "yet", 10**18)
    assert (
        problem and problem.startswith("1,000,000,000.00 GB are to be fetched, ") and problem.endswith(" GB are free")
    )
    assert _no_room(tmp_path, 1) is None


def test_a_cache_that_cannot_be_written(login_node):
    login_node.variables["HF_HOME"] = "/proc/nothing"
    error, hint = login_node.refused()
    assert error.startswith(f"error: model.path: {NAME}: cannot be kept in /proc/")
    assert "HF_HOME" in hint


def test_the_cache_that_the_spec_gives_to_jobs_is_filled(login_node, tmp_path):
    login_node.values["cluster"]["env"] = {"HF_HOME": str(tmp_path / "shared")}
    assert login_node.fetch()["models"][NAME]["folder"].startswith(str(tmp_path / "shared" / "hub"))
