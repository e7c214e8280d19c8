"""Guards that weights of another model than config.json describes are told, and that no good model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcsft.model_folder.check import check_model
from hpcsft.model_folder.sizes import check_sizes
from hpcsft.model_folder.weights import find_weights, read_weights
from tests.model_folder.made import TOKENIZER, refused, safetensors, write

SIZES = {
    "vocab_size": 6,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIG = {**SIZES, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": True}
LAYER = {
    **{"self_attn.q_proj": [8, 8], "self_attn.k_proj": [4, 8], "self_attn.v_proj": [4, 8], "self_attn.o_proj": [8, 8]},
    **{"mlp.gate_proj": [12, 8], "mlp.up_proj": [12, 8], "mlp.down_proj": [8, 12]},
    **{"input_layernorm": [8], "post_attention_layernorm": [8]},
}
WEIGHTS: dict[str, list[int]] = {
    "model.embed_tokens.weight": [6, 8],
    **{f"model.layers.{layer}.{name}.weight": sizes for layer in range(2) for name, sizes in LAYER.items()},
    "model.norm.weight": [8],
}
COUNT = 6 * 8 + 8 + 2 * (2 * 64 + 2 * 32 + 3 * 96 + 16)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A whole Llama."""
    write(tmp_path, "config.json", CONFIG)
    write(tmp_path, "tokenizer.json", TOKENIZER)
    write(tmp_path, "tokenizer_config.json", {"eos_token": "</s>"})
    (tmp_path / "model.safetensors").write_bytes(safetensors(WEIGHTS))
    assert check_model(str(tmp_path), "model.path").num_parameters == COUNT
    return tmp_path


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hidden_size": 16}, r"embed_tokens\.weight is \[6, 8\], config\.json describes \[6, 16\]"),
        (
            {"num_key_value_heads": 4},
            r"layers\.0\.self_attn\.k_proj\.weight is \[4, 8\], config\.json describes \[8, 8\]",
        ),
        (
            {"intermediate_size": 13},
            r"layers\.0\.mlp\.gate_proj\.weight is \[12, 8\], config\.json describes \[13, 8\]",
        ),
        ({"num_hidden_layers": 3}, rf"the weights hold {COUNT:,} parameters, config\.json describes 1,544"),
        ({"num_hidden_layers": 1}, rf"the weights hold {COUNT:,} parameters, config\.json describes 552"),
        ({"attention_bias": True}, rf"the weights hold {COUNT:,} parameters, config\.json describes {COUNT + 48:,}"),
        ({"tie_word_embeddings": False}, rf"hold {COUNT:,} parameters, config\.json describes {COUNT + 48:,}"),
    ],
)
def test_a_config_of_another_model(change, text, folder):
    write(folder, "config.json", {**CONFIG, **change})
    assert "different models" in refused(folder, text)


@pytest.mark.parametrize(
    "change",
    [
        {"quantization_config": {"quant_method": "gptq"}, "hidden_size": 64},
        {"model_type": "mamba", "architectures": ["MambaForCausalLM"], "hidden_size": 64},
        {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 64},
        {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "num_key_value_heads": None},
    ],
    ids=["packed", "of another kind", "head_dim left open", "heads left open"],
)
def test_what_is_not_known_for_sure_is_left_to_training(change, folder):
    write(folder, "config.json", {**CONFIG, **change})
    check_model(str(folder), "model.path")


def test_tables_that_old_versions_saved_do_not_count(folder):
    tables = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": [1] for layer in range(2)}
    (folder / "model.safetensors").write_bytes(safetensors({**WEIGHTS, **tables}))
    assert check_model(str(folder), "model.path").num_parameters == COUNT


def test_names_without_a_prefix_are_the_same_model(folder):
    short = {name.removeprefix("model."): sizes for name, sizes in WEIGHTS.items()}
    (folder / "model.safetensors").write_bytes(safetensors(short))
    check_model(str(folder), "model.path")


@pytest.mark.parametrize(("place", "differs"), [(None, False), (0, True), (96_000, True)])
def test_a_second_output_layer_must_be_the_embedding(place, differs, folder):
    """Many folders store both; where they differ, one of the two would be lost."""
    write(folder, "config.json", {**CONFIG, "vocab_size": 6000})
    weights = {**WEIGHTS, "model.embed_tokens.weight": [6000, 8], "lm_head.weight": [6000, 8]}
    content = bytearray(safetensors(weights))
    if place is not None:
        content[len(content) - 6000 * 8 * 4 + place] = 1
    (folder / "model.safetensors").write_bytes(content)
    if differs:
        hint = refused(folder, "config.json ties embedding and output layer, and the weights hold two different ones")
        assert "tie_word_embeddings" in hint and "lm_head.weight" in hint
    else:
        check_model(str(folder), "model.path")
    write(folder, "config.json", {**CONFIG, "vocab_size": 6000, "tie_word_embeddings": False})
    check_model(str(folder), "model.path")


FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("Llama", {}),
    ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 4}),
    ("Mistral", {}),
    ("Qwen2", {}),
    ("Qwen2", {"tie_word_embeddings": True}),
    ("Qwen3", {}),
    ("Gemma", {}),
    ("Gemma2", {}),
    ("Granite", {"attention_bias": True}),
    ("Phi3", {"pad_token_id": 0}),
    ("SmolLM3", {"pad_token_id": 0}),
]


@pytest.mark.parametrize(("family", "keys"), FAMILIES)
def test_models_of_transformers_fit_their_configs(family, keys, tmp_path):
    import transformers

    config = getattr(transformers, f"{family}Config")(**SIZES, **keys)
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())
    check_sizes(read_weights(find_weights(tmp_path)), stated, tmp_path)


def test_the_published_layout_of_baichuan_fits(folder):
    """One matrix for queries, keys and values."""
    config = {**CONFIG, "model_type": "baichuan", "architectures": ["BaichuanForCausalLM"]}
    del config["num_key_value_heads"]
    write(folder, "config.json", config)
    fused = {name: sizes for name, sizes in WEIGHTS.items() if not name.endswith(("q_proj.weight", "k_proj.weight"))}
    for name in [name for name in fused if "v_proj" in name]:
        del fused[name]
        fused[name.replace("v_proj", "W_pack")] = [24, 8]
    (folder / "model.safetensors").write_bytes(safetensors(fused))
    check_model(str(folder), "model.path")
