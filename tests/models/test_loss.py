"""Guards the loss: a flat micro batch of several rows gives the loss and the gradients of its rows one at a time, as
transformers itself computes them, in models of many kinds; no row sees another; a rank without rows computes nothing
and still takes part.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from hpcsft.data.batches import Batch, RowStore
from hpcsft.data.shards import IGNORE_INDEX
from hpcsft.models.attention import attend_by_row, document_arguments
from hpcsft.models.heads import LossHead, install_loss_head
from hpcsft.models.load import load_for_training
from hpcsft.models.loss import supervised_loss
from hpcsft.models.tokenizer import load_tokenizer
from tests.conftest import build_tiny_model
from tests.data.encoding import encoder_of, rows_of
from tests.data.reference import long_dialogs
from tests.data.rows import Row, open_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory, conversations) -> Path:
    """Weights large enough that attention decides: with the usual ones a leak between rows would hardly show."""
    return build_tiny_model(tmp_path_factory.mktemp("sharp"), conversations, initializer_range=0.3)


@pytest.fixture(scope="module")
def rows(folder, conversations) -> list[Row]:
    encoder = encoder_of(load_tokenizer(str(folder)), max_length=400)
    return rows_of(encoder, long_dialogs(conversations)[::25] + conversations[100:104])


@pytest.fixture(scope="module")
def store(tmp_path_factory, rows) -> RowStore:
    return open_rows(tmp_path_factory.mktemp("shards"), rows)


@pytest.fixture(params=["sdpa", "eager"])
def model(request, folder) -> PreTrainedModel:
    return load_for_training(str(folder), "float32", request.param)


@pytest.fixture(scope="module")
def plain(folder) -> PreTrainedModel:
    """Nothing of ours in it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def plain_loss(model: PreTrainedModel, row: Row) -> torch.Tensor:
    """Sum over one row, from transformers' own mean."""
    mean = model(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss
    return mean * row.num_supervised


def test_a_flat_batch_equals_its_rows_one_at_a_time(model, plain, store, rows):
    chosen = [3, 0, 7, 1]
    flat = supervised_loss(model, store.batch(chosen))
    alone = sum(plain_loss(plain, rows[number]) for number in chosen)
    assert flat.dtype == torch.float32 and flat.shape == ()
    assert flat.item() == pytest.approx(alone.item(), rel=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_equal_those_of_the_rows_one_at_a_time(model, plain, store, rows, recompute):
    chosen = [3, 0, 7]
    plain.zero_grad()
    for number in chosen:
        plain_loss(plain, rows[number]).backward()
    alone = {name: parameter.grad for name, parameter in plain.named_parameters()}
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    supervised_loss(model, store.batch(chosen)).backward()
    for name, parameter in model.named_parameters():
        scale = alone[name].abs().max().item()
        assert scale > 0
        torch.testing.assert_close(parameter.grad, alone[name], rtol=1e-4, atol=1e-5 * scale)


def test_no_row_sees_another(model, store):
    def loss_of_the_last(first: int) -> float:
        batch = store.batch([first, 5])
        mine = batch.positions >= store.tokens([first])
        part = Batch(batch.input_ids, batch.position_ids, batch.positions[mine], batch.targets[mine], batch.lengths)
        return supervised_loss(model, part).item()

    alone = supervised_loss(model, store.batch([5])).item()
    assert loss_of_the_last(0) == pytest.approx(alone, rel=1e-5)
    assert loss_of_the_last(3) == pytest.approx(alone, rel=1e-5)


def test_without_rows_the_loss_is_zero_and_every_parameter_has_a_gradient(model, store):
    loss = supervised_loss(model, store.batch([]))
    loss.backward()
    assert loss.item() == 0 and loss.dtype == torch.float32
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name


def test_half_precision_sums_in_float32(folder, store):
    model = load_for_training(str(folder), "bfloat16", "sdpa")
    batch = store.batch([3, 0, 7, 1])
    loss = supervised_loss(model, batch)
    exact = supervised_loss(load_for_training(str(folder), "float32", "sdpa"), batch)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact.item(), rel=0.02)


SMALL = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
KINDS = {
    "tied": ("llama", {"tie_word_embeddings": True}, True, True),
    "untied": ("llama", {"tie_word_embeddings": False}, True, True),
    "sliding window": ("mistral", {"sliding_window": 20}, True, True),
    "biases": ("qwen2", {}, True, True),
    "norms of heads": ("qwen3", {}, True, True),
    "fused projections": ("phi3", {}, True, True),
    "parallel layers": ("gpt_neox", {}, True, False),
    "scaled logits": ("cohere", {"logit_scale": 0.3}, False, False),
    "divided logits": ("granite", {"logits_scaling": 3.0}, False, False),
    "softcapped logits": ("gemma2", {}, False, False),
    "bias of the output layer": ("phi", {}, False, False),
}
"""Model type, settings, whether the loss can be computed in its output layer, whether its norm selects positions."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_gives_its_own_loss(kind):
    """What the model does with its logits after the output layer counts."""
    name, settings, in_head, selects = KINDS[kind]
    config = AutoConfig.for_model(name, **SMALL, **settings)
    torch.manual_seed(0)
    attention = "eager" if name == "gemma2" else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    lengths = (40, 17, 60)
    ids = torch.randint(3, SMALL["vocab_size"], (1, sum(lengths)))
    supervised = torch.tensor([3, 4, 5, 20, 38, 45, 50, 70, 100, 110])
    places = torch.cat([torch.arange(length) for length in lengths])[None]
    batch = Batch(ids, places, supervised, ids[0, supervised + 1], lengths)
    alone, start = torch.zeros(()), 0
    for length in lengths:
        mine = supervised[(supervised >= start) & (supervised < start + length)] - start
        labels = torch.full((1, length), IGNORE_INDEX)
        labels[0, mine + 1] = ids[0, start + mine + 1]
        alone = alone + model(input_ids=ids[:, start : start + length], labels=labels).loss * len(mine)
        start += length
    alone.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    attend_by_row(model)
    install_loss_head(model)
    head = model.get_output_embeddings()
    assert isinstance(head, LossHead) == in_head and getattr(head, "selects", False) == selects
    loss = supervised_loss(model, batch)
    loss.backward()
    assert loss.item() == pytest.approx(alone.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5 * scale)


def test_the_model_still_gives_logits_and_its_weights_keep_their_names(model, plain, rows):
    ids = torch.tensor([rows[0].input_ids])
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    found = model(input_ids=ids, **document_arguments(model, ids.shape[1:], ids.device)).logits
    torch.testing.assert_close(found, plain(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
