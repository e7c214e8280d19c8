"""Training of adapters: plain peft's numbers, the same bits after a kill, and a base model that nothing changes."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hpcsft.errors import StageError
from hpcsft.models.load import load_model
from hpcsft.records import read_jsonl
from hpcsft.rundir import RunDir
from hpcsft.train.base_model import FILE_PIECE_BYTES, fingerprint, frozen_names, load_learnt
from hpcsft.train.checkpoints import Found, load_checkpoint
from hpcsft.train.snapshot import SMALL_FILES_BYTES, SnapshotEngine, snapshot_bytes
from tests import prepared
from tests.train.plain import train_plainly
from tests.train.ranks import new_run, train, train_and_kill
from tests.train.test_checkpoints import OneRank

EVERY_TIME = (2,)
"""Stages of ZeRO that are tried every time."""
STAGES = [pytest.param(stage, marks=() if stage in EVERY_TIME else pytest.mark.slow) for stage in range(4)]


@pytest.fixture
def adapted(spec_values: dict[str, Any]) -> dict[str, Any]:
    """Two epochs of a few steps with adapters, without evaluation."""
    spec_values.pop("evaluate")
    spec_values["model"]["lora"] = {"rank": 4, "alpha": 8}
    spec_values["train"]["checkpoint"] = {"every_steps": 4}
    spec_values["data"]["sample"] = 60
    return spec_values


def losses(run: RunDir) -> list[tuple[int, str]]:
    return [(row["step"], float(row["loss"]).hex()) for row in read_jsonl(run.metrics)]


def assert_plain(run: RunDir) -> None:
    """Losses and gradients are those of plain peft."""
    plain, rows = train_plainly(run), list(read_jsonl(run.metrics))
    assert len(rows) == len(plain.losses) >= 8
    assert [row["loss"] for row in rows] == pytest.approx(plain.losses, rel=1e-5)
    assert [row["grad_norm"] for row in rows] == pytest.approx(plain.grad_norms, rel=1e-4)


def assert_same_models(one: RunDir, other: RunDir) -> None:
    """The exports of both runs load as the same bits, in whatever form they are."""
    for epoch in (1, 2):
        states = [load_model(str(run.epoch_model(epoch)), "float32").state_dict() for run in (one, other)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def assert_adapters_alone(run: RunDir) -> None:
    """No checkpoint holds a weight of the base model, a tied one neither; and no export has changed one without."""
    files = list(run.checkpoints.glob("step-*/*model_states.pt"))
    assert files
    for file in files:
        state = torch.load(file, weights_only=False)
        assert state["module"] and all(".lora_" in name for name in state["module"]), file
        assert not state["frozen_param_fragments"]
    base, learnt = (load_model(path, "float32").state_dict() for path in (model_of(run), str(run.epoch_model(2))))
    for name, weight in base.items():
        assert torch.equal(weight, learnt[name]) == (not name.endswith("_proj.weight")), name


def model_of(run: RunDir) -> str:
    return prepared.context_of(run, "train").spec.model.path


@pytest.mark.parametrize("zero_stage", STAGES)
def test_losses_are_those_of_plain_peft_and_a_kill_changes_no_bit(
    zero_stage: int, adapted: dict[str, Any], tmp_path: Path
) -> None:
    """What the one run exports merged, and the killed one as adapters, loads as the same model."""
    stage = f"train.zero_stage={zero_stage}"
    whole = new_run(adapted, tmp_path / "whole", stage)
    train(whole)
    assert_plain(whole)
    assert_adapters_alone(whole)

    killed = new_run(adapted, tmp_path / "killed", stage, "model.lora.export=adapter")
    train_and_kill(killed, after_step=6)
    assert re.search(r"resumed after step [1-9]", train(killed))
    assert losses(killed) == losses(whole)
    assert {path.name for path in killed.epoch_model(2).iterdir()} >= {"adapter_config.json", "tokenizer.json"}
    assert len(load_file(killed.epoch_model(2) / "adapter_model.safetensors")) == 2 * 7 * 2
    assert_same_models(whole, killed)


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", range(4))
def test_dropout_in_bfloat16_resumes_with_the_same_bits(
    zero_stage: int, adapted: dict[str, Any], tmp_path: Path
) -> None:
    """With checkpointing, where the backward pass has to drop the same; micro batches of one row differ by rank."""
    options = ["model.dtype=bfloat16", "model.gradient_checkpointing=true", "train.micro_batch_size=1"]
    options += [f"train.zero_stage={zero_stage}", "model.lora.dropout=0.2"]
    whole = new_run(adapted, tmp_path / "whole", *options)
    train(whole)
    killed = new_run(adapted, tmp_path / "killed", *options)
    train_and_kill(killed, after_step=6)
    train(killed)
    assert losses(killed) == losses(whole)
    assert_same_models(whole, killed)
    without = new_run(adapted, tmp_path / "without", *options[:-1], "model.lora.dropout=0")
    train(without)
    assert losses(without)[0] == losses(whole)[0] and losses(without)[-1] != losses(whole)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", range(4))
@pytest.mark.parametrize("ranks", [(2, 1), (1, 2)])
def test_another_number_of_ranks_goes_on_with_the_same_numbers(
    zero_stage: int, ranks: tuple[int, int], adapted: dict[str, Any], tmp_path: Path
) -> None:
    run = new_run(adapted, tmp_path, f"train.zero_stage={zero_stage}")
    train_and_kill(run, 6, ranks[0])
    assert re.search(r"resumed after step [1-9]", train(run, ranks[1]))
    assert_plain(run)
    assert_adapters_alone(run)


def test_a_checkpoint_is_refused_when_another_model_has_taken_the_place_of_its_base(
    adapted: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    """Adapters to one model in another are neither."""
    base = shutil.copytree(tiny_model, tmp_path / "base")
    adapted["model"]["path"] = str(base)
    run = prepared.new_run(adapted)
    context, folder = prepared.context_of(run, "train"), tmp_path / "step-000004"
    folder.mkdir()
    torch.save({"base": fingerprint(str(base))}, folder / "rank-00000.pt")
    engine: Any = SimpleNamespace(module=torch.nn.Linear(2, 2).requires_grad_(False), load_checkpoint=loaded)
    complete: Any = SimpleNamespace(world_size=1)
    with pytest.raises(AssertionError, match="it came to loading"):
        load_checkpoint(engine, context, OneRank(), Found(folder, complete), None)  # type: ignore[arg-type]
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(StageError, match=r"step-000004 holds adapters to another model than is now in .*/base"):
        load_checkpoint(engine, context, OneRank(), Found(folder, complete), None)  # type: ignore[arg-type]


def loaded(*_: Any, **__: Any) -> None:
    raise AssertionError("it came to loading")


def test_a_fingerprint_is_of_the_content(tiny_model: Path, tmp_path: Path) -> None:
    """Not of dates, which copies change, nor of the tokenizer; of an adapter's base as well."""
    base = shutil.copytree(tiny_model, tmp_path / "base")
    os.utime(base / "model.safetensors", (0, 0))
    (base / "tokenizer.json").unlink()
    assert fingerprint(str(base)) == fingerprint(str(tiny_model))
    found = {fingerprint(str(base))}
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{base}", "lora_alpha": 8}}')
    found.add(fingerprint(str(adapter)))
    config = (base / "config.json").read_text()
    (base / "config.json").write_text(config.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    found |= {fingerprint(str(base)), fingerprint(str(adapter))}
    (adapter / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{base}", "lora_alpha": 9}}')
    found.add(fingerprint(str(adapter)))
    assert len(found) == 5


def test_a_fingerprint_sees_every_tensor(tiny_model: Path, tmp_path: Path) -> None:
    """A merged adapter changes some matrices in the middle of a file, and neither its size nor its ends."""
    base = shutil.copytree(tiny_model, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    large = {**weights, "a": torch.zeros(1 << 20), "z": torch.zeros(1 << 20)}
    found = set()
    for name in [None, *weights]:
        changed = {**large, name: large[name] + 0.01} if name else large
        save_file(changed, base / "model.safetensors", metadata={"format": "pt"})
        found.add(fingerprint(str(base)))
    assert len(found) == 1 + len(weights)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.gguf", "not-whole.safetensors"])
def test_a_fingerprint_looks_all_over_a_file(name: str, tmp_path: Path) -> None:
    """One whose tensors it does not know: any change that is longer than a gap between pieces is seen."""
    size, file = 100 * FILE_PIECE_BYTES, tmp_path / name
    found = set()
    for start in (None, 0, size // 3, size // 2, size - FILE_PIECE_BYTES):
        content = bytearray(size)
        if start is not None:
            content[start : start + FILE_PIECE_BYTES] = b"x" * FILE_PIECE_BYTES
        file.write_bytes(content)
        found.add(fingerprint(str(tmp_path)))
    assert len(found) == 5


@pytest.mark.parametrize("background", [True, False])
def test_a_snapshot_holds_and_counts_what_learns(background: bool, tmp_path: Path) -> None:
    """Memory for a copy of the base model as well would be refused on many hosts, and no file needs it."""
    module = torch.nn.Sequential(torch.nn.Linear(1000, 1000), torch.nn.Linear(2, 2))
    module[0].requires_grad_(False)
    engine = SimpleNamespace(
        module=module,
        module_state_dict=module.state_dict,
        save_non_zero_checkpoint=True,
        save_zero_checkpoint=False,
        zero_optimization=lambda: True,
    )
    assert snapshot_bytes(engine) - SMALL_FILES_BYTES < 1000
    writer = SnapshotEngine()
    writer.left_out = frozen_names(module)
    writer.begin(background)
    writer.save({"module": module.state_dict(), "step": 3}, str(tmp_path / "state.pt"))
    writer.start()
    [facts] = writer.finish().values()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["module"].keys() == {"1.weight", "1.bias"} and state["step"] == 3
    assert facts.size_bytes < 10_000


def test_states_that_lack_what_learns_are_refused() -> None:
    """DeepSpeed would go on with what is there, since frozen weights are missing anyway."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    module[0].requires_grad_(False)
    assert frozen_names(module) == {"0.weight", "0.bias"}
    state = {name: torch.ones(2, 2) if "weight" in name else torch.ones(2) for name in ("1.weight", "1.bias")}
    load_learnt(state, module)
    assert (module[1].weight == 1).all() and not (module[0].weight == 1).all()
    with pytest.raises(StageError, match=r"1 weights are missing or too many, the first: 1\.bias"):
        load_learnt({"1.weight": state["1.weight"]}, module)
    with pytest.raises(StageError, match=r"the first: 2\.weight"):
        load_learnt({**state, "2.weight": torch.ones(1)}, module)
