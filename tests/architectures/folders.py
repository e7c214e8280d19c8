"""Tiny models of every architecture that hpcsft names, in the folders in which they are published.

Sizes are tiny, weights random, tokenizers trained on real dialogs; names, files and settings are the published ones.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from hpcsft.models.tokenizer import load_tokenizer
from tests.models import baichuan_reference, spm

SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
GROUPED = {**SIZE, "num_key_value_heads": 2}


def legacy_llama(folder: Path) -> Path:
    """llama-7b-hf of early 2023: pickled half-precision shards with rotary buffers, wrong token ids in its configs."""
    spm.decapoda(folder)
    vocab_size = spm.SETTINGS["llama"]["vocab_size"]
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **SIZE))
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    for layer in range(SIZE["num_hidden_layers"]):
        head_dim = SIZE["hidden_size"] // SIZE["num_attention_heads"]
        inv_freq = 1.0 / 10000 ** (torch.arange(0, head_dim, 2).float() / head_dim)
        state[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = inv_freq
    files = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    where = {name: files[number % 2] for number, name in enumerate(state)}
    for file in files:
        torch.save({name: tensor for name, tensor in state.items() if where[name] == file}, folder / file)
    config = {
        "architectures": ["LLaMAForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": -1,
        "hidden_act": "silu",
        **{name: size for name, size in SIZE.items() if name != "max_position_embeddings"},
        "initializer_range": 0.02,
        "max_sequence_length": 2048,
        "model_type": "llama",
        "rms_norm_eps": 1e-06,
        "torch_dtype": "float16",
        "transformers_version": "4.27.0.dev0",
        "use_cache": True,
        "vocab_size": vocab_size,
    }
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    documents = {
        "config.json": config,
        "generation_config.json": {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0},
        "pytorch_model.bin.index.json": index,
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    return folder


def baichuan(folder: Path, config: dict[str, Any]) -> Path:
    """Baichuan2-7B-Base, or Baichuan-7B, by its `config`: fused projection, raw head, bare sentencepiece, own code."""
    spm.baichuan2(folder)
    config = {**config, "vocab_size": spm.SETTINGS["baichuan"]["vocab_size"]}
    files = baichuan_reference.write_folder(folder / "model", baichuan_reference.random_tensors(config), config, "bin")
    for file in files.iterdir():
        file.replace(folder / file.name)
    files.rmdir()
    return folder


def published(kind: str, folder: Path, byte_level: Path) -> Path:
    """The folder of the architecture `kind`; `byte_level` is one with a byte-level tokenizer."""
    if kind == "llama-7b-hf":
        return legacy_llama(folder)
    if kind.startswith("baichuan"):
        return baichuan(folder, baichuan_reference.CONFIG if "2" in kind else baichuan_reference.BAICHUAN1)
    tokenizer = byte_level
    if kind in ("llama-2", "mistral"):
        tokenizer = spm.huggyllama(folder)
    loaded = load_tokenizer(str(tokenizer))
    tokens = {"bos_token_id": loaded.bos_token_id, "eos_token_id": loaded.eos_token_id}
    make(kind.removesuffix("-adapter"), len(loaded), tokens).save_pretrained(folder)
    for file in tokenizer.glob("tokenizer*") if tokenizer != folder else ():
        shutil.copy(file, folder)
    return folder


def make(kind: str, vocab_size: int, tokens: dict[str, Any]) -> PreTrainedModel:
    """A model of the architecture `kind`; `tokens` are the ids of its special tokens."""
    torch.manual_seed(1)
    common = {"vocab_size": vocab_size, **tokens}
    llama3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 128}  # fmt: skip
    models = {
        "llama-2": lambda: LlamaForCausalLM(LlamaConfig(**common, **SIZE)),
        "llama-3": lambda: LlamaForCausalLM(LlamaConfig(**common, **GROUPED, rope_parameters=llama3)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**common, **GROUPED, sliding_window=24)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**common, **GROUPED)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**common, **GROUPED, head_dim=16, tie_word_embeddings=True)),
        "smollm2": lambda: LlamaForCausalLM(LlamaConfig(**common, **GROUPED, tie_word_embeddings=True)),
    }
    return models[kind]()
