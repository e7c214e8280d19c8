"""Guards the loss: a flat micro batch of several rows gives the loss and the gradients of its rows one at a time, as
transformers itself computes them; no row sees another; a rank without rows computes nothing and still takes part.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from hpcsft.data.batches import Batch, RowStore
from hpcsft.models.load import load_model
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
    return load_model(str(folder), "float32", request.param)


def plain_loss(model: PreTrainedModel, row: Row) -> torch.Tensor:
    """Sum over one row, from transformers' own mean."""
    mean = model(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss
    return mean * row.num_supervised


def test_a_flat_batch_equals_its_rows_one_at_a_time(model, store, rows):
    chosen = [3, 0, 7, 1]
    flat = supervised_loss(model, *store.batch(chosen))
    alone = sum(plain_loss(model, rows[number]) for number in chosen)
    assert flat.dtype == torch.float32 and flat.shape == ()
    assert flat.item() == pytest.approx(alone.item(), rel=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_equal_those_of_the_rows_one_at_a_time(model, store, rows, recompute):
    chosen = [3, 0, 7]
    model.train()
    for number in chosen:
        plain_loss(model, rows[number]).backward()
    alone = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    supervised_loss(model, *store.batch(chosen)).backward()
    for name, parameter in model.named_parameters():
        scale = alone[name].abs().max().item()
        assert scale > 0
        torch.testing.assert_close(parameter.grad, alone[name], rtol=1e-4, atol=1e-5 * scale)


def test_no_row_sees_another(model, store):
    def loss_of_the_last(first: int) -> float:
        batch = store.batch([first, 5])
        mine = batch.positions >= store.tokens([first])
        part = Batch(batch.input_ids, batch.position_ids, batch.positions[mine], batch.targets[mine])
        return supervised_loss(model, *part).item()

    alone = supervised_loss(model, *store.batch([5])).item()
    assert loss_of_the_last(0) == pytest.approx(alone, rel=1e-5)
    assert loss_of_the_last(3) == pytest.approx(alone, rel=1e-5)


def test_without_rows_the_loss_is_zero_and_every_parameter_has_a_gradient(model, store):
    loss = supervised_loss(model.train(), *store.batch([]))
    loss.backward()
    assert loss.item() == 0 and loss.dtype == torch.float32
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name


def test_half_precision_sums_in_float32(folder, store):
    model = load_model(str(folder), "bfloat16", "sdpa")
    batch = store.batch([3, 0, 7, 1])
    loss = supervised_loss(model, *batch)
    exact = supervised_loss(load_model(str(folder), "float32", "sdpa"), *batch)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact.item(), rel=0.02)
