"""Guards that an adapter that cannot be merged into its base model is told before anything is queued."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpcsft.errors import InputError
from hpcsft.model_folder.adapter import DOES_MORE, base_of
from hpcsft.model_folder.check import check_model
from tests.model_folder.made import make_folder, refused, safetensors, write

BASE = {"model.embed_tokens.weight": [3, 2], "model.layers.0.q.weight": [6, 4], "model.layers.1.q.weight": [6, 4]}
LAYER = "base_model.model.model.layers.{}.q.lora_{}.weight"
ADAPTER = {LAYER.format(layer, part): [2, 4] if part == "A" else [6, 2] for layer in (0, 1) for part in "AB"}


@pytest.fixture
def base(tmp_path) -> Path:
    folder = make_folder(tmp_path / "base")
    (folder / "model.safetensors").write_bytes(safetensors(BASE))
    return folder


@pytest.fixture
def adapter(base, tmp_path) -> Path:
    """Whole, with a tokenizer of its own."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, folder)
    configure(folder, base)
    (folder / "adapter_model.safetensors").write_bytes(safetensors(ADAPTER))
    return folder


def configure(folder: Path, base: object, **settings: object) -> None:
    plain = {"peft_type": "LORA", "bias": "none", "use_dora": False, "modules_to_save": None, "layer_replication": []}
    write(folder, "adapter_config.json", {**plain, "base_model_name_or_path": str(base), **settings})


def test_an_adapter_is_what_its_base_model_is(adapter, base):
    assert check_model(str(adapter), "model.path") == check_model(str(base), "model.path")


def test_an_adapter_to_an_adapter(adapter, base, tmp_path):
    second = shutil.copytree(adapter, tmp_path / "second")
    configure(second, adapter)
    for name in ("tokenizer.json", "tokenizer_config.json"):  # the second's counts
        (adapter / name).unlink()
    assert check_model(str(second), "model.path") == check_model(str(base), "model.path")
    assert base_of(second) == str(adapter) and base_of(adapter) == str(base)


def test_the_base_model_has_an_absolute_path(adapter, base):
    for path in ("meta-llama/Llama-2-7b-hf", "../base"):
        configure(adapter, path)
        hint = refused(adapter, f"the base model of this adapter is '{path}', which is no absolute path")
        assert "downloaded first" in hint and str(adapter / "adapter_config.json") in hint
    configure(adapter, "/none/such")
    hint = refused(adapter, "the base model of this adapter is not there: no such folder: /none/such")
    assert "base_model_name_or_path" in hint


def test_an_adapter_that_is_its_own_base(adapter, base, tmp_path):
    configure(adapter, adapter)
    assert "base_model_name_or_path" in refused(adapter, "has no base model: .* leads back to")
    second = shutil.copytree(adapter, tmp_path / "second")
    configure(adapter, second)
    refused(second, "has no base model: .* leads back to")
    third = shutil.copytree(adapter, tmp_path / "third")
    refused(third, "has no base model: .* leads back to")


def test_a_base_model_that_is_damaged(adapter, base):
    (base / "model.safetensors").unlink()
    with pytest.raises(InputError, match=f"model.path: {base}: no weights inside"):
        check_model(str(adapter), "model.path")


def test_another_kind_of_adapter(adapter, base):
    configure(adapter, base, peft_type="IA3")
    assert "merge_and_unload" in refused(adapter, "an adapter of type IA3, which cannot be merged")


@pytest.mark.parametrize("name", DOES_MORE)
def test_an_adapter_that_does_more(name, adapter, base):
    configure(adapter, base, **{name: ["lm_head"]})
    assert "merge_and_unload" in refused(adapter, rf"the adapter cannot be merged: .*\({name}\)")


def test_weights_that_are_missing_or_damaged(adapter):
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(safetensors(ADAPTER)[:-1])
    refused(adapter, "not a whole safetensors file")
    weights.unlink()
    assert refused(adapter, "no weights inside: adapter_model.safetensors is missing") == "download it again"
    (adapter / "adapter_model.bin").touch()
    assert "safetensors" in refused(adapter, "no weights inside: adapter_model.safetensors is missing")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"base_model.model.lm_head.weight": [3, 2]}, r"holds more than A and B of linear layers: .*lm_head\.weight"),
        ({LAYER.format(0, "B"): [6, 3]}, r"A and B of .*layers\.0\.q do not fit each other: \[2, 4\] and \[6, 3\]"),
        ({LAYER.format(0, "A"): [4]}, r"do not fit each other: \[4\] and \[6, 2\]"),
        (
            {LAYER.format(7, "A"): [2, 4], LAYER.format(7, "B"): [6, 2]},
            r"which has no model\.layers\.7\.q\.weight",
        ),
        ({LAYER.format(5, "A"): [2, 4]}, r"do not fit each other: \[2, 4\] and none"),
        ({LAYER.format(1, "A"): [2, 5]}, r"layers\.1\.q\.weight is \[6, 4\] there, the adapter's is \[6, 5\]"),
    ],
)
def test_an_adapter_to_another_model(change, text, adapter):
    (adapter / "adapter_model.safetensors").write_bytes(safetensors({**ADAPTER, **change}))
    refused(adapter, text)


def test_names_that_the_base_model_s_file_lacks_are_left_to_training(adapter, base):
    """Baichuan's has one matrix for three of a model's layers; quantized ones have other shapes."""
    names = {name.replace(".q.", ".k_proj."): sizes for name, sizes in ADAPTER.items()}
    (adapter / "adapter_model.safetensors").write_bytes(safetensors(names))
    check_model(str(adapter), "model.path")
    (adapter / "adapter_model.safetensors").write_bytes(safetensors({**ADAPTER, LAYER.format(1, "A"): [2, 5]}))
    config = {"model_type": "llama", "quantization_config": {"quant_method": "bitsandbytes"}}
    write(base, "config.json", config)
    check_model(str(adapter), "model.path")


def test_the_tokenizer_is_the_adapters_own(adapter, base):
    (adapter / "tokenizer.json").unlink()
    assert str(base) in refused(adapter, "no tokenizer inside, beside the adapter")
    write(adapter, "tokenizer.json", {"model": {"vocab": {"a": 8, "</s>": 1}}})
    refused(adapter, "the tokenizer has 9 tokens, the embedding 3 rows")


def test_without_peft(adapter, monkeypatch):
    """A judge may be an adapter too, and needs it as much."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install peft" in refused(adapter, "an adapter, and peft is not installed")
