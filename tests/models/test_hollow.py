"""Models without values: the ranks that wait for weights must have the very parameters that the one that reads has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

import hpcsft.models
from hpcsft.models.hollow import filled, is_hollow
from hpcsft.models.load import load_for_training
from hpcsft.spec.model import LoraSpec
from tests.architectures import folders

KINDS = ("llama-3", "mistral", "qwen3", "smollm2", "baichuan2")


def described(model: PreTrainedModel) -> list[tuple[str, tuple[int, ...], torch.dtype, bool]]:
    """Name, shape, type and whether it learns of each parameter, tied ones once."""
    named = model.named_parameters()
    return [(name, tuple(own.shape), own.dtype, own.requires_grad) for name, own in named]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, str]:
    base = tmp_path_factory.mktemp("published")
    return {kind: str(folders.published(kind, base / kind, tiny_model)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [None, LoraSpec(rank=2)], ids=["whole", "lora"])
def test_a_hollow_model_is_the_model_without_its_values(published, kind, lora):
    options = (published[kind], "bfloat16", "auto", lora)
    read, hollow = load_for_training(*options), load_for_training(*options, read=False)
    assert described(hollow) == described(read)
    embeddings = [(model.get_input_embeddings(), model.get_output_embeddings()) for model in (read, hollow)]
    assert len({inputs.weight is outputs.weight for inputs, outputs in embeddings}) == 1
    base = [own for name, own in hollow.named_parameters() if ".lora_" not in name]
    assert base and all(is_hollow(own) for own in base)
    for (name, mine), (other, theirs) in zip(hollow.named_buffers(), read.named_buffers(), strict=True):
        assert name == other and torch.equal(mine, theirs)


def test_what_is_filled_can_be_computed_with(published):
    model = load_for_training(published["smollm2"], "float32", "auto", read=False)
    others = list(filled(model, torch.device("cpu")))
    assert not any(map(is_hollow, model.parameters()))
    assert [id(own) for own in others] == [id(own) for own in model.parameters()]  # also for those who hold them
    whole = load_for_training(published["smollm2"], "float32", "auto")
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), whole.parameters(), strict=True):
            mine.copy_(theirs)
    ids = torch.arange(20)[None]
    assert torch.equal(model(ids, row_lengths=[20]).logits, whole(ids, row_lengths=[20]).logits)


def test_the_way_in_has_a_short_name(tiny_model):
    assert hpcsft.models.load_model(str(tiny_model), dtype="float32").config.model_type == "llama"
    assert hpcsft.models.load_tokenizer(str(tiny_model)).is_fast
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        hpcsft.models.nonesuch  # noqa: B018
