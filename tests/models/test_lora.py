"""Adapters: what learns, what an export holds, and that plain peft reads it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from hpcsft.errors import InputError
from hpcsft.model_folder.adapter import is_adapter
from hpcsft.model_folder.check import check_model
from hpcsft.models.baichuan.configuration import BaichuanConfig
from hpcsft.models.heads import LossHead, install_loss_head
from hpcsft.models.load import load_model
from hpcsft.models.lora import add_adapters, load_adapter, merged_state, write_adapter
from hpcsft.spec.model import LoraSpec

TIMEOUT_S = 240
SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "smollm2": LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "mistral": MistralConfig(**GROUPED),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "baichuan": BaichuanConfig(**SIZES),
}
IDS = torch.arange(3, 20)[None]
LORA = LoraSpec(rank=4, alpha=12)


def build(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(config, dtype=dtype)


def learnt(model: PreTrainedModel) -> PreTrainedModel:
    """`model` with adapters that have moved far from where they start."""
    add_adapters(model, LORA)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return model


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("name", CONFIGS)
def test_only_adapters_learn_and_the_head_has_none(name: str) -> None:
    """One step of training with the loss head; the model starts as it was, and stays one of transformers' own."""
    model = build(CONFIGS[name])
    before, start = {key: value.clone() for key, value in model.state_dict().items()}, logits(model)
    head = model.get_output_embeddings()
    add_adapters(model, LORA)
    assert model.get_output_embeddings() is head
    assert torch.equal(logits(model), start)
    install_loss_head(model)
    model.train().gradient_checkpointing_enable({"use_reentrant": False})
    head = model.get_output_embeddings()
    assert isinstance(head, LossHead)
    learning = {key: value for key, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(learning.values(), lr=0.1)
    for _ in range(2):  # in the first A has no gradient, because B is zero
        with head.scoring(torch.arange(IDS.shape[1] - 1), IDS[0, 1:]):
            model(input_ids=IDS, use_cache=False).logits.backward()
        optimizer.step()
    seven = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {key.split(".lora_")[0].rpartition(".")[2] for key in learning} == seven
    assert len(learning) == 2 * 7 * 2
    assert all(value.grad is not None and value.grad.any() for value in learning.values())
    after = model.state_dict()
    for key, value in before.items():
        owner, _, rest = key.rpartition(".")
        assert torch.equal(after.get(f"{owner}.base_layer.{rest}", after.get(key)), value), key


@pytest.mark.parametrize("name", CONFIGS)
def test_merged_weights_do_what_weights_and_adapters_did(name: str) -> None:
    model = learnt(build(CONFIGS[name]))
    found, state = logits(model), dict(model.state_dict())
    merged = merged_state(model, state)
    assert state == {}, "no second copy of the weights"
    fresh = build(CONFIGS[name])
    assert (logits(fresh) - found).abs().max() > 1e-2
    assert merged.keys() == fresh.state_dict().keys()
    fresh.load_state_dict(merged)
    torch.testing.assert_close(logits(fresh), found, rtol=1e-5, atol=1e-5)
    shared = merged["model.embed_tokens.weight"].data_ptr() == merged["lm_head.weight"].data_ptr()
    assert shared == fresh.config.tie_word_embeddings


def test_a_merged_weight_is_rounded_once() -> None:
    """W + scaling B A in float32, then bfloat16: rounding the product on its own moves every tenth weight."""
    model = learnt(build(CONFIGS["llama"], torch.bfloat16))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    layer = model.model.layers[0].mlp.up_proj
    w, a, b = layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    exact = (w.double() + 3 * b.double() @ a.double()).bfloat16()
    found = merged_state(model, dict(model.state_dict()))["model.layers.0.mlp.up_proj.weight"]
    assert (found != exact).float().mean() < 0.01


def test_the_beginning_depends_on_the_seed_alone() -> None:
    """Not on what was drawn before, nor does it change what is drawn next: ranks and attempts must agree."""
    found = []
    for seed, drawn in ((5, 0), (5, 3), (6, 0)):
        model = build(CONFIGS["llama"])
        torch.rand(drawn)
        before = torch.get_rng_state()
        add_adapters(model, LORA, seed)
        assert torch.equal(torch.get_rng_state(), before)
        found.append(model.model.layers[1].mlp.up_proj.lora_A["default"].weight)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_on_the_meta_device_adapters_are_there_too() -> None:
    with torch.device("meta"):
        model = build(CONFIGS["llama"], torch.bfloat16)
    add_adapters(model, LORA)
    assert {(parameter.is_meta, parameter.dtype) for parameter in model.parameters()} == {(True, torch.bfloat16)}


@pytest.mark.parametrize(("wanted", "count"), [(["q_proj", "v_proj"], 4), (["layers.1.mlp.up_proj"], 1)])
def test_named_layers_get_adapters(wanted: list[str], count: int) -> None:
    model = build(CONFIGS["llama"])
    add_adapters(model, LoraSpec(target_modules=wanted))
    assert sum(name.endswith("lora_A") for name, _ in model.named_modules()) == count


@pytest.mark.parametrize("wanted", ["query", "proj", "mlp", "lm_head"])
def test_unknown_layers_are_told_with_those_there_are(wanted: str) -> None:
    model = build(CONFIGS["llama"])
    with pytest.raises(InputError, match=f"no linear layer with the name {wanted}") as error:
        add_adapters(model, LoraSpec(target_modules=["q_proj", wanted]))
    assert error.value.hint == "there are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"


PLAIN_PEFT = """
import sys, peft, torch
from transformers import AutoModelForCausalLM
adapter, base, out = sys.argv[1:]
if base == "auto":
    model = peft.AutoPeftModelForCausalLM.from_pretrained(adapter)
else:
    import hpcsft.models.baichuan
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
with torch.no_grad():
    torch.save(model.eval()(torch.arange(3, 20)[None]).logits, out)
"""


def written(config: PreTrainedConfig, folder: Path) -> tuple[PreTrainedModel, Path]:
    """A model with adapters, and the folder to which these were written; the base model lies in `folder`/base."""
    base = build(config)
    base.save_pretrained(folder / "base")
    model, adapter = learnt(base), folder / "adapter"
    adapter.mkdir()
    write_adapter(model, model.state_dict(), adapter, str(folder / "base"))
    return model, adapter


@pytest.mark.parametrize("name", ["smollm2", "baichuan"])
def test_plain_peft_reads_the_adapter(name: str, tmp_path: Path) -> None:
    """Without hpcsft where the architecture is transformers' own, and by the path of the base model in it."""
    model, adapter = written(CONFIGS[name], tmp_path)
    base = str(tmp_path / "base") if name == "baichuan" else "auto"
    command = [sys.executable, "-W", "error::UserWarning", "-c", PLAIN_PEFT, adapter, base, tmp_path / "logits.pt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "logits.pt")
    torch.testing.assert_close(found, logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_folder_of_an_adapter_loads_as_the_merged_model(name: str, tmp_path: Path) -> None:
    """The very bits that a merged export would hold, in a plain model that can be trained again."""
    model, adapter = written(CONFIGS[name], tmp_path)
    assert is_adapter(str(adapter)) and not is_adapter(str(tmp_path / "base"))
    before = torch.get_rng_state()
    found = load_model(str(adapter), "float32", training=True)
    assert torch.equal(torch.get_rng_state(), before)
    state, wanted = found.state_dict(), merged_state(model, dict(model.state_dict()))
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[key], wanted[key]) for key in wanted)
    assert all(parameter.requires_grad for parameter in found.parameters()) and not hasattr(found, "peft_config")


def test_the_same_adapter_is_the_same_file(tmp_path: Path) -> None:
    """An export that is made again after a kill must not differ."""
    folders = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        folders.append(written(CONFIGS["llama"], tmp_path / name)[1])
    files = [sorted(file.name for file in folder.iterdir()) for folder in folders]
    assert files[0] == files[1] and {"adapter_config.json", "adapter_model.safetensors"} <= set(files[0])
    weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in folders]
    configs = [(folder / "adapter_config.json").read_text().replace("/two/", "/one/") for folder in folders]
    assert weights[0] == weights[1] and configs[0] == configs[1]
    targets = json.loads(configs[0])["target_modules"]
    assert targets == sorted(targets), "a set has another order in every process"


def change(adapter: Path, **values: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def refused(adapter: Path) -> InputError:
    with pytest.raises(InputError) as error:
        load_adapter(str(adapter), lambda base: load_model(base, "float32"))
    return error.value


def test_what_is_wrong_with_an_adapter_is_told(tmp_path: Path) -> None:
    _, adapter = written(CONFIGS["llama"], tmp_path)
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({key: value for key, value in tensors.items() if "layers.0" in key}, weights)
    assert "14 weights are missing or too many, the first: base_model.model.model.layers.1" in refused(adapter).message
    change(adapter, r=3)
    save_file(tensors, weights)
    assert f"{name} is [4, 32] instead of [3, 32]" in refused(adapter).message
    change(adapter, r=4, target_modules=["none"])
    assert "the adapter cannot be merged into" in refused(adapter).message


def test_what_the_login_node_refuses_is_not_loaded(tmp_path: Path) -> None:
    """By the same words; tests/model_folder/test_adapter.py has them all."""
    _, adapter = written(CONFIGS["llama"], tmp_path)
    shutil.copy(tmp_path / "base" / "config.json", adapter)
    for values in ({"use_dora": True}, {"peft_type": "IA3"}, {"base_model_name_or_path": "org/name"}):
        before = (adapter / "adapter_config.json").read_text()
        change(adapter, **values)
        with pytest.raises(InputError) as caught:
            check_model(str(adapter), "model.path")
        assert caught.value.message == f"model.path: {refused(adapter).message}"
        (adapter / "adapter_config.json").write_text(before)
    (adapter / "adapter_model.safetensors").write_bytes(b"cut off")
    assert "not a whole safetensors file" in refused(adapter).message


def test_an_adapter_to_a_layer_of_another_kind_is_refused(tmp_path: Path) -> None:
    """GPT-2's weights are the other way around: merged as they stand they would be another model's."""
    import peft

    base = build(GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=96))
    base.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(target_modules=["attn.c_proj"], fan_in_fan_out=True)
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    change(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "base"))
    error = refused(tmp_path / "adapter")
    assert "c_proj has an adapter of another kind" in error.message and "merge_and_unload" in str(error.hint)


def test_without_peft_an_adapter_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, adapter = written(CONFIGS["llama"], tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "peft is not installed" in refused(adapter).message
