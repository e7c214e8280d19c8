"""Guards how weights get into a model: all of them, from any format, without running what a file asks for, and so that
each can learn.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from hpcsft.errors import InputError
from hpcsft.model_folder.check import check_model
from hpcsft.models.load import load_for_training, load_model
from hpcsft.models.weight_files import check_loaded, free_padding_row, loading_options
from tests.models.made_gguf import write_gguf


class Call:
    """Pickled, it asks for a folder to be made."""

    def __init__(self, trace: Path):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.fixture
def folder(tmp_path, tiny_model) -> Path:
    """The tiny model without its weights."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy", ignore=shutil.ignore_patterns("model.safetensors")))


@pytest.fixture
def weights(tiny_model) -> dict[str, torch.Tensor]:
    return load_file(tiny_model / "model.safetensors")


def load(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, dict[str, Any]]:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **loading_options(str(folder))
    )


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_bin_files_of_any_age_load(zipped, stored, folder, weights):
    state = {name: weight.to(stored) for name, weight in weights.items()}
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert loading_options(str(folder)) == {}
    model, found = load(folder, torch.bfloat16)
    check_loaded(str(folder), model, found)
    for name, weight in state.items():
        assert torch.equal(model.state_dict()[name], weight.to(torch.bfloat16))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickle_that_asks_for_more_gets_the_login_nodes_error(zipped, folder, weights, tmp_path):
    state = {**weights, "more": Call(tmp_path / "called")}
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    text = r"pytorch_model\.bin: refused: it asks for posix\.mkdir, which plain weights do not need"
    with pytest.raises(InputError, match=text) as caught:
        loading_options(str(folder))
    with pytest.raises(InputError) as on_login_node:
        check_model(str(folder), "model.path")
    assert on_login_node.value.message == f"model.path: {caught.value.message}"
    assert not (tmp_path / "called").exists()


def test_transformers_itself_would_not_run_it_either(folder, weights, tmp_path):
    """What is refused above rests on names alone; this is the wall behind it."""
    torch.save({**weights, "more": Call(tmp_path / "called")}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match="Weights only load failed"):
        AutoModelForCausalLM.from_pretrained(folder)
    assert not (tmp_path / "called").exists()


def test_a_folder_without_weights(folder):
    with pytest.raises(InputError, match="copy: no weights inside"):
        loading_options(str(folder))


def test_weights_that_are_missing(folder, weights):
    del weights["model.layers.1.mlp.down_proj.weight"]
    torch.save(weights, folder / "pytorch_model.bin")
    text = r"copy: 1 weights are missing, the first: model\.layers\.1\.mlp\.down_proj\.weight"
    with pytest.raises(InputError, match=text):
        check_loaded(str(folder), *load(folder))


def test_weights_of_other_sizes(folder, weights):
    name = "model.layers.1.mlp.down_proj.weight"
    torch.save({**weights, name: weights[name][:, 1:].contiguous()}, folder / "pytorch_model.bin")
    text = r"copy: 1 weights have other sizes .*down_proj\.weight is \[32, 63\] instead of \[32, 64\]"
    with pytest.raises(InputError, match=text) as caught:
        check_loaded(str(folder), *load(folder))
    assert "different models" in caught.value.hint


@pytest.mark.parametrize("name", ["model.layers.2.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"])
def test_weights_that_have_no_place(name, folder, weights):
    """A config with fewer layers, or of a model without biases: transformers would drop them, and say so in a log."""
    torch.save({**weights, name: torch.zeros(2)}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=f"copy: 1 weights have no place in LlamaForCausalLM, the first: {name}"):
        check_loaded(str(folder), *load(folder))


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "transformer.h.0.attn.masked_bias"])
def test_tables_that_old_versions_saved_are_not_missed(name, folder, weights):
    torch.save({**weights, name: torch.zeros(2)}, folder / "pytorch_model.bin")
    check_loaded(str(folder), *load(folder))


@pytest.mark.parametrize(("kind", "tolerance"), [(GGMLQuantizationType.F32, 1e-5), (GGMLQuantizationType.F16, 1e-3)])
def test_a_gguf_file_gives_the_logits_of_the_safetensors(kind, tolerance, tmp_path, tiny_model):
    write_gguf(tiny_model, tmp_path / "tiny.gguf", kind)
    options = loading_options(str(tmp_path))
    assert options["gguf_file"] == "tiny.gguf"
    config = AutoConfig.from_pretrained(tmp_path, gguf_file=options["gguf_file"])
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 1, None)
    model, found = load(tmp_path)
    check_loaded(str(tmp_path), model, found)
    right, _ = load(tiny_model)
    tokens = torch.arange(40)[None]
    difference = (model(tokens).logits - right(tokens).logits).abs().max()
    assert difference < tolerance


def test_quantized_weights_are_unpacked_to_be_trained_and_saved(tmp_path, tiny_model, weights):
    """Also where packages are installed that would compute with them as they are."""
    kind = GGMLQuantizationType.Q8_0
    for name, weight in weights.items():
        if weight.ndim == 2:
            weights[name] = torch.tensor(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind))
    write_gguf(tiny_model, tmp_path / "tiny.gguf", kind)
    model, found = load(tmp_path, torch.bfloat16)
    check_loaded(str(tmp_path), model, found)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, weight in weights.items():
        assert torch.equal(model.state_dict()[name], weight.to(torch.bfloat16)), name
    model.save_pretrained(tmp_path / "saved")
    assert "quantization" not in (tmp_path / "saved" / "config.json").read_text()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("pad", [1, -1, None])
def test_every_token_learns_whatever_the_padding_token_is(pad):
    """eos is the padding token of many folders, and -1 in early ones of Llama stands for the last token."""
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=1, eos_token_id=1, pad_token_id=pad))
    tokens = torch.tensor([[0, 1, 7, 1, 2]])
    row = model.get_input_embeddings().weight

    def learns() -> list[bool]:
        model.zero_grad()
        model(tokens, labels=tokens).loss.backward()
        return [bool(row.grad[token].any()) for token in (1, 7)]

    assert learns() == [pad != 1, pad != -1]
    free_padding_row(model)
    assert learns() == [True, True]


def test_masked_padding_needs_no_padding_row():
    """The gradient is zero anyway."""
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=1, pad_token_id=3))
    free_padding_row(model)
    tokens = torch.tensor([[0, 1, 2, 3, 3]])
    mask = (tokens != 3).long()
    model(tokens, attention_mask=mask, labels=tokens.masked_fill(mask == 0, -100)).loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient[1].any() and not gradient[3].any()


def test_an_embedding_of_another_kind_is_left_alone():
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=0, num_attention_heads=1))
    model.set_input_embeddings(torch.nn.Identity())
    free_padding_row(model)
    assert not hasattr(model.get_input_embeddings(), "padding_idx")


@pytest.mark.parametrize("equal", [True, False])
def test_two_different_embeddings_are_not_tied(tiny_model, folder, weights, equal):
    """transformers leaves them apart without a word, and others tie them: two models from one folder."""
    embedding = weights["model.embed_tokens.weight"]
    weights["lm_head.weight"] = embedding.clone() if equal else embedding + 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if equal:
        head = load_model(str(folder), "float32").get_output_embeddings()
        assert torch.equal(head.weight, embedding)
        return
    with pytest.raises(InputError, match="the weights hold two different ones") as caught:
        load_model(str(folder), "float32")
    assert "tie_word_embeddings" in caught.value.hint


def test_quantized_weights_are_not_trained(tiny_model, folder):
    shutil.copy(tiny_model / "model.safetensors", folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    for read in (True, False):
        with pytest.raises(InputError, match="copy: quantized weights cannot be trained"):
            load_for_training(str(folder), "float32", "auto", read=read)
