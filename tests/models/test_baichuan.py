"""Guards Baichuan 7B and Baichuan2 7B: folders as published give the logits, the tokens, the loss and the gradients of
an independent reference, and are written as they were read.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hpcsft.data.batches import Batch
from hpcsft.errors import InputError
from hpcsft.models.attention import BY_ROW
from hpcsft.models.heads import LossHead
from hpcsft.models.load import load_for_training, load_model
from hpcsft.models.loss import supervised_loss
from tests.models.baichuan_reference import (
    BAICHUAN1,
    CONFIG,
    Tensors,
    greedy_of,
    logits_of,
    loss_of,
    random_tensors,
    write_folder,
)

KINDS = {"baichuan2": CONFIG, "baichuan1": BAICHUAN1}
LENGTHS = (30, 7, 44)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return random_tensors()


@pytest.fixture(scope="module", params=KINDS)
def config(request) -> dict[str, Any]:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tensors, config) -> Path:
    return write_folder(tmp_path_factory.mktemp("published") / "model", tensors, config)


@pytest.fixture(scope="module")
def rows() -> list[list[int]]:
    """Of LENGTHS; no padding token in them, whose embedding does not learn."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(3, CONFIG["vocab_size"], (length,), generator=generator).tolist() for length in LENGTHS]


def flat(rows: list[list[int]], supervised: list[list[int]]) -> Batch:
    starts = itertools.accumulate(LENGTHS[:-1], initial=0)
    positions = [start + place for start, places in zip(starts, supervised, strict=True) for place in places]
    ids = torch.tensor([list(itertools.chain(*rows))])
    places = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    return Batch(ids, places, torch.tensor(positions), ids[0, torch.tensor(positions) + 1], LENGTHS)


def parts_of(tensors: Tensors) -> Tensors:
    """The tensors under the names they have in memory."""
    found = {name: tensor for name, tensor in tensors.items() if "W_pack" not in name}
    for name in tensors.keys() - found.keys():
        split = tensors[name].chunk(3)
        found |= {name.replace("W_pack", f"{part}_proj"): piece for part, piece in zip("qkv", split, strict=True)}
    return found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_are_the_references(folder, tensors, config, rows, attention):
    model = load_model(str(folder), "float32", attention)
    for ids in rows:
        torch.testing.assert_close(model(torch.tensor([ids])).logits[0], logits_of(tensors, ids, config), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_do_not_see_each_other(folder, tensors, config, rows, attention):
    batch = flat(rows, [[0]] * 3)
    model = load_model(str(folder), "float32", attention)
    logits = model(batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits[0]
    for found, ids in zip(logits.split(LENGTHS), rows, strict=True):
        torch.testing.assert_close(found, logits_of(tensors, ids, config), **CLOSE)


@torch.no_grad()
def test_left_padded_generation_is_the_references(folder, tensors, config, rows):
    """With the cache, one token at a time; the reference computes everything anew."""
    model = load_model(str(folder), "float32")
    model.generation_config.eos_token_id = None
    padded = torch.tensor([[0] * (max(LENGTHS) - len(ids)) + ids for ids in rows])
    options = {"max_new_tokens": 12, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    found = model.generate(padded, attention_mask=(padded != 0).long(), **options)
    for number, ids in enumerate(rows):
        tokens = found.sequences[number, padded.shape[1] :].tolist()
        assert tokens == greedy_of(tensors, ids, 12, config)
        whole = logits_of(tensors, ids + tokens[:-1], config)[len(ids) - 1 :]
        torch.testing.assert_close(torch.stack([step[number] for step in found.logits]), whole, **CLOSE)


@pytest.mark.parametrize(("attention", "recompute"), [("sdpa", False), ("eager", False), ("sdpa", True)])
def test_training_does_what_the_references_gradients_say(folder, tensors, config, rows, attention, recompute):
    supervised = [[3, 4, 20, 28], [], [0, 11, 12, 42]]
    learned = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    expected = loss_of(learned, list(zip(rows, supervised, strict=True)), config)
    expected.backward()
    model = load_for_training(str(folder), "float32", attention)
    assert isinstance(model.get_output_embeddings(), LossHead)
    assert model.config._attn_implementation == (BY_ROW if attention == "sdpa" else "eager")
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = supervised_loss(model, flat(rows, supervised))
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    before = parts_of(tensors)
    gradients = parts_of({name: tensor.grad for name, tensor in learned.items()})
    assert gradients.keys() == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), f"{name} was changed by a forward pass"
        scale = gradients[name].abs().max().item()
        assert scale > 0
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5 * scale)


def test_the_length_of_a_normalised_row_takes_no_part_in_the_loss(tmp_path, tensors, rows):
    """Its gradient is perpendicular to it, as that of a weight which is scaled at every forward."""
    model = load_for_training(str(write_folder(tmp_path / "model", tensors)), "float32", "sdpa")
    supervised_loss(model, flat(rows, [[3], [2], [1]])).backward()
    weight = model.lm_head.weight
    along = (weight * weight.grad).sum(dim=1) / weight.norm(dim=1)
    assert along.abs().max() < 1e-5 < weight.grad.norm(dim=1).max()


def fetched(folder: Path) -> Tensors:
    return dict(itertools.chain(*(load_file(file).items() for file in folder.glob("*.safetensors"))))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folder_is_written_as_it_was_read(tmp_path, tensors, config, kind, dtype):
    stored = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
    published = write_folder(tmp_path / "published", stored, {**config, "torch_dtype": dtype}, kind)
    model = load_model(str(published), dtype, training=True)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    with torch.device("meta"):  # as an export does, whose weights come from elsewhere
        empty = AutoModelForCausalLM.from_config(model.config, dtype=model.dtype)
    empty.save_pretrained(tmp_path / "export", state_dict=model.state_dict())
    for name in ("whole", "shards", "export"):
        found = fetched(tmp_path / name)
        assert found.keys() == stored.keys()
        assert all(torch.equal(found[key], stored[key]) and found[key].dtype == stored[key].dtype for key in stored)
        written = json.loads((tmp_path / name / "config.json").read_text())
        kept = {key: value for key, value in config.items() if key not in ("torch_dtype", "transformers_version")}
        assert {key: written.get(key) for key in kept} == kept and written["dtype"] == dtype
        again = load_model(str(tmp_path / name), dtype, training=True)
        assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))


def test_projections_that_are_split_already_load_too(tmp_path, tensors, rows):
    split = {name: tensor.clone() for name, tensor in parts_of(tensors).items()}
    model = load_model(str(write_folder(tmp_path / "model", split)), "float32")
    torch.testing.assert_close(model(torch.tensor(rows[:1])).logits[0], logits_of(tensors, rows[0]), **CLOSE)


def test_a_fused_projection_that_is_missing_is_named(tmp_path, tensors):
    rest = {name: tensor for name, tensor in tensors.items() if "1.self_attn.W_pack" not in name}
    folder = write_folder(tmp_path / "model", rest)
    with pytest.raises(InputError, match=r"3 weights are missing, the first: model\.layers\.1\.self_attn\.k_proj"):
        load_model(str(folder))
