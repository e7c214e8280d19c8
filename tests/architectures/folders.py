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

SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
GROUPED = {**SIZE, "num_key_value_heads": 2}


def write(model: PreTrainedModel, tokenizer: Path, folder: Path) -> Path:
    """`model` as safetensors, and the tokenizer files of the folder `tokenizer`."""
    model.save_pretrained(folder)
    for file in tokenizer.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens", "vocab", "merges")):
            shutil.copy(file, folder)
    return folder


def legacy_llama(folder: Path, sentencepiece: Path, vocab_size: int) -> Path:
    """llama-7b-hf of early 2023: pickled shards with rotary buffers, wrong token ids, no pad token, bare sentencepiece."""
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
    names = {"bos_token": "", "eos_token": "", "unk_token": "", "model_max_length": 1e30}
    documents = {
        "config.json": config,
        "generation_config.json": {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0},
        "pytorch_model.bin.index.json": index,
        "tokenizer_config.json": {**names, "tokenizer_class": "LLaMATokenizer"},
        "special_tokens_map.json": {},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    shutil.copy(sentencepiece, folder / "tokenizer.model")
    return folder


def make(kind: str, folder: Path, vocab_size: int, tokens: dict[str, Any]) -> PreTrainedModel:
    """A model of the architecture `kind` as published in safetensors; `tokens` are the ids of its special tokens."""
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
