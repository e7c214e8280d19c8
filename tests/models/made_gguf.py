"""A Llama folder as a GGUF file, as llama.cpp's converter writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file

CONTROL, NORMAL = 3, 1
LLAMA_NAMES = {  # llama.cpp's name of a weight -> the name in transformers' LlamaForCausalLM
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_gguf(
    source: Path,
    file: Path,
    kind: GGMLQuantizationType = GGMLQuantizationType.F16,
    architecture: str = "llama",
    tokenizer: bool = True,
    eos: bool = True,
    scaling: str | None = None,
    chat_template: str | None = None,
    more: dict[str, Any] | None = None,
) -> Path:
    """Write the model in `source` to `file`: matrices as `kind`, the rest in float32; `more` are further tensors."""
    config = json.loads((source / "config.json").read_text())
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    if scaling:
        writer.add_string(f"{architecture}.rope.scaling.type", scaling)
    if chat_template:
        writer.add_chat_template(chat_template)
    if tokenizer:
        _add_tokenizer(writer, source, eos)
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    for name, weight in load_file(source / "model.safetensors").items():
        values = _interleaved(name, weight, heads).float().numpy()
        stored = kind if values.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(_gguf_name(name), gguf.quantize(values, stored), raw_dtype=stored)
    for name, values in (more or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: gguf.GGUFWriter, source: Path, eos: bool) -> None:
    document = json.loads((source / "tokenizer.json").read_text())
    tokens = {number: text for text, number in document["model"]["vocab"].items()}
    control = {entry["id"]: entry["content"] for entry in document["added_tokens"]}
    numbers = sorted({**tokens, **control})
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([{**tokens, **control}[number] for number in numbers])
    writer.add_token_types([CONTROL if number in control else NORMAL for number in numbers])
    writer.add_token_merges([" ".join(merge) for merge in document["model"]["merges"]])
    writer.add_bos_token_id(0)
    if eos:
        writer.add_eos_token_id(1)


def _gguf_name(name: str) -> str:
    theirs = {ours: key for key, ours in {**LLAMA_NAMES, "output": "lm_head"}.items()}
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        layer, part = stem.removeprefix("model.layers.").split(".", 1)
        return f"blk.{layer}.{theirs[part]}.weight"
    return f"{theirs[stem]}.weight"


def _interleaved(name: str, weight: torch.Tensor, heads: dict[str, int]) -> torch.Tensor:
    """llama.cpp's order of q and k: the two halves of every head's rotary pairs take turns."""
    projection = name.split(".")[-2]
    if projection not in ("q_proj", "k_proj"):
        return weight
    number = heads[projection[0]]
    return weight.reshape(number, 2, len(weight) // number // 2, -1).transpose(1, 2).reshape(weight.shape)
