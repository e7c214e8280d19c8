"""Guards the choice of attention, and attention row by row: what is computed is what a mask would give."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from hpcsft.data.batches import Batch
from hpcsft.models import attention as module
from hpcsft.models.attention import attend_by_row, choose_attention, document_arguments, sdpa_by_row
from hpcsft.models.load import load_for_training, load_model
from hpcsft.models.loss import supervised_loss

LENGTHS = (5, 1, 9, 20)


def masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None) -> torch.Tensor:
    """Attention under one dense mask over all positions."""
    row = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    place = torch.arange(len(row))
    distance = place[:, None] - place
    mask = (row[:, None] == row) & (distance >= 0)
    if window:
        mask &= distance < window
    key, value = (tensor.repeat_interleave(2, dim=1) for tensor in (key, value))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 6, 100])
def test_row_by_row_is_what_one_mask_gives(window):
    torch.manual_seed(0)
    length = sum(LENGTHS)
    query, key, value = (torch.randn(1, heads, length, 8) for heads in (4, 2, 2))
    layer = torch.nn.Module()
    layer.num_key_value_groups, layer.is_causal = 2, True
    found, weights = sdpa_by_row(
        layer, query, key, value, None, row_lengths=LENGTHS, sliding_window=window, scaling=0.3, dropout=0.0
    )
    assert weights is None
    torch.testing.assert_close(found, masked(query, key, value, window))


def test_training_attends_by_row_and_inference_by_a_mask(tiny_model):
    trained, answering = load_for_training(str(tiny_model), "float32", "auto"), load_model(str(tiny_model), "float32")
    assert trained.training and trained.config._attn_implementation == module.BY_ROW
    assert answering.config._attn_implementation == "sdpa"
    assert document_arguments(trained, LENGTHS, torch.device("cpu")) == {"row_lengths": LENGTHS}
    assert document_arguments(answering, LENGTHS, torch.device("cpu")) == {}


def test_models_of_an_older_make_keep_their_mask(tiny_model, monkeypatch):
    model = load_model(str(tiny_model), "float32")
    monkeypatch.setattr(type(model), "_supports_attention_backend", False)
    attend_by_row(model)
    assert model.config._attn_implementation == "sdpa"


def test_flash_attention_is_told_where_rows_begin(tiny_model):
    model = load_model(str(tiny_model), "float32")
    model.config._attn_implementation_internal = "flash_attention_2"
    told = document_arguments(model, LENGTHS, torch.device("cpu"))
    assert told["cu_seq_lens_q"].tolist() == told["cu_seq_lens_k"].tolist() == [0, 5, 6, 15, 35]
    assert told["cu_seq_lens_q"].dtype == torch.int32 and told["max_length_q"] == told["max_length_k"] == 20


@pytest.mark.slow
def test_flex_attention_sees_rows(tiny_model):
    """It is compiled, and on CPUs only its forward pass; transformers takes the rows from position_ids."""
    ids = torch.arange(3, 3 + sum(LENGTHS))[None]
    places = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    supervised = torch.tensor([1, 3, 8, 20, 30])
    batch = Batch(ids, places, supervised, ids[0, supervised + 1], LENGTHS)
    losses = []
    for attention in ("sdpa", "flex_attention"):
        model = load_for_training(str(tiny_model), "float32", attention)
        with torch.no_grad():
            losses.append(supervised_loss(model, batch).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


CHOICES = [
    ("bfloat16", "h100", True, "llama", True, "flash_attention_2"),
    ("bfloat16", "h100", True, "llama", False, "flash_attention_2"),
    ("bfloat16", "v100", True, "llama", True, "flex_attention"),
    ("float32", "h100", True, "llama", True, "flex_attention"),
    ("float32", "h100", True, "llama", False, "sdpa"),
    ("bfloat16", "h100", False, "llama", True, "flex_attention"),
    ("bfloat16", "h100", False, "falcon", True, "sdpa"),
    ("bfloat16", None, True, "llama", True, "sdpa"),
]


@pytest.mark.parametrize(("dtype", "gpu", "flash", "model_type", "training", "expected"), CHOICES)
def test_auto_takes_the_best_that_machine_and_model_know(
    dtype, gpu, flash, model_type, training, expected, monkeypatch
):
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(AutoConfig.for_model(model_type))]
    installed = {"flash_attn": flash, "triton": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: {"h100": (9, 0), "v100": (7, 0)}[gpu])
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object() if installed[name] else None)
    assert choose_attention("auto", dtype, model_class, training) == expected
    assert choose_attention("eager", dtype, model_class, training) == "eager"
