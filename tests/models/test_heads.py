"""Guards the normalised output layer: models that only answer pay for it once, and answer the same."""

from __future__ import annotations

import pytest
import torch

from hpcsft.models import heads
from hpcsft.models.heads import NormHead, fold_norm
from hpcsft.models.load import load_model
from tests.models.baichuan_reference import BAICHUAN1, CONFIG, random_tensors, write_folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "model", random_tensors())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 60, 8192])
def test_folding_changes_no_bit_of_the_logits_and_keeps_one_matrix(folder, monkeypatch, dtype, rows):
    monkeypatch.setattr(heads, "ROWS_AT_ONCE", rows)
    model = load_model(str(folder), dtype, training=True)
    assert isinstance(model.lm_head, NormHead)
    ids, weight = torch.arange(3, 40)[None], model.lm_head.weight
    before, others = model(ids).logits, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fold_norm(model)
    assert type(model.lm_head) is torch.nn.Linear and model.lm_head.weight is weight and model.lm_head.bias is None
    assert torch.equal(model(ids).logits, before)
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, others[name])]
    assert changed == ["lm_head.weight"]


def test_only_models_that_do_not_train_are_folded(folder):
    answering, learning = (load_model(str(folder), "bfloat16", training=training) for training in (False, True))
    assert type(answering.lm_head) is torch.nn.Linear and type(learning.lm_head) is NormHead
    ids = torch.arange(3, 40)[None]
    assert torch.equal(answering(ids).logits, learning(ids).logits)


def test_folding_leaves_plain_heads_alone(tmp_path):
    model = load_model(str(write_folder(tmp_path / "model", random_tensors(), BAICHUAN1)), "float32")
    before = model.lm_head.weight.clone()
    head = model.lm_head
    fold_norm(model)
    assert model.lm_head is head and torch.equal(head.weight, before)


def test_a_head_that_is_the_embedding_too_is_not_folded(tmp_path):
    tied = {**CONFIG, "tie_word_embeddings": True}
    rest = {name: tensor for name, tensor in random_tensors().items() if name != "lm_head.weight"}
    model = load_model(str(write_folder(tmp_path / "model", rest, tied)), "float32", training=True)
    before = model.get_input_embeddings().weight.clone()
    fold_norm(model)
    assert isinstance(model.lm_head, NormHead) and torch.equal(model.get_input_embeddings().weight, before)


def test_folded_files_on_the_disk_stay_as_they_are(folder):
    """Weights may be pages of the very file."""
    content = (folder / "model.safetensors").read_bytes()
    fold_norm(load_model(str(folder), "float32", training=True))
    assert (folder / "model.safetensors").read_bytes() == content
