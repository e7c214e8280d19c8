"""Baichuan 7B and Baichuan2 7B in plain torch, of the tensors as they are published; and folders of such tensors.

Written from the architecture's description, to be compared with: one sequence, no cache, no padding, a loop per head.

Shapes: S positions, H hidden size, D size of a head, V vocabulary.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn import functional

CONFIG: dict[str, Any] = {
    "architectures": ["BaichuanForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_baichuan.BaichuanConfig",
        "AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM",
    },
    "tokenizer_class": "BaichuanTokenizer",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "model_max_length": 256,
    "model_type": "baichuan",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "rms_norm_eps": 1e-06,
    "_from_model_config": True,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.29.2",
    "use_cache": True,
    "vocab_size": 211,
    "z_loss_weight": 0,
}
"""Baichuan2-7B-Base's, of another size."""
BAICHUAN1 = {name: value for name, value in CONFIG.items() if name != "z_loss_weight"}
"""Baichuan-7B's, whose head is plain."""

Tensors = dict[str, torch.Tensor]


def random_tensors(config: dict[str, Any] = CONFIG, seed: int = 0) -> Tensors:
    """All weights, large enough for attention to decide, rows of the head of very different lengths. float32."""
    generator = torch.Generator().manual_seed(seed)
    hidden, wide, vocab = (config[name] for name in ("hidden_size", "intermediate_size", "vocab_size"))
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        parts = {
            "self_attn.W_pack": (3 * hidden, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (wide, hidden),
            "mlp.up_proj": (wide, hidden),
            "mlp.down_proj": (hidden, wide),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in parts.items()}
    tensors = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}
    for name in (name for name in tensors if "norm" in name):
        tensors[name] += 1
    head = torch.randn(vocab, hidden, generator=generator)
    tensors["lm_head.weight"] = head * torch.empty(vocab, 1).uniform_(0.02, 0.2, generator=generator)
    return tensors


def logits_of(tensors: Tensors, ids: list[int], config: dict[str, Any] = CONFIG) -> torch.Tensor:
    """Logits [S, V] of `ids`, differentiable with respect to `tensors`."""
    hidden = tensors["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        mine = {
            name.split(f"layers.{layer}.")[1].removesuffix(".weight"): tensor
            for name, tensor in tensors.items()
            if f".layers.{layer}." in name
        }
        hidden = hidden + _attention(_rms_norm(hidden, mine["input_layernorm"], config), mine, config)
        inner = _rms_norm(hidden, mine["post_attention_layernorm"], config)
        gate = inner @ mine["mlp.gate_proj"].T
        hidden = hidden + (gate * torch.sigmoid(gate) * (inner @ mine["mlp.up_proj"].T)) @ mine["mlp.down_proj"].T
    head = tensors["lm_head.weight"]
    if "z_loss_weight" in config:
        head = head / head.square().sum(dim=1, keepdim=True).sqrt()
    return _rms_norm(hidden, tensors["model.norm.weight"], config) @ head.T


def greedy_of(tensors: Tensors, ids: list[int], count: int, config: dict[str, Any] = CONFIG) -> list[int]:
    """The `count` most likely tokens after `ids`, everything computed anew for each."""
    found = list(ids)
    for _ in range(count):
        found.append(int(logits_of(tensors, found, config)[-1].argmax()))
    return found[len(ids) :]


def loss_of(tensors: Tensors, rows: list[tuple[list[int], list[int]]], config: dict[str, Any] = CONFIG) -> torch.Tensor:
    """Sum of the cross-entropy of each row's ids at its supervised positions, each against the next id."""
    losses = []
    for ids, positions in rows:
        targets = torch.tensor([ids[position + 1] for position in positions], dtype=torch.int64)
        losses.append(functional.cross_entropy(logits_of(tensors, ids, config)[positions], targets, reduction="sum"))
    return torch.stack(losses).sum()


def write_folder(folder: Path, tensors: Tensors, config: dict[str, Any] = CONFIG, kind: str = "safetensors") -> Path:
    """The folder as published: "safetensors", or "bin" in two shards with the buffers that old code kept as well."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if kind == "safetensors":
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    size = config["hidden_size"] // config["num_attention_heads"]
    buffer = 1 / 10000 ** (torch.arange(0, size, 2) / size)
    names = [f"model.layers.{layer}.self_attn.rotary_emb.inv_freq" for layer in range(config["num_hidden_layers"])]
    everything = tensors | dict.fromkeys(names, buffer)
    files = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    places = {name: files[number % 2] for number, name in enumerate(sorted(everything))}
    for file in files:
        torch.save({name: everything[name].clone() for name in places if places[name] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def _rms_norm(hidden: torch.Tensor, weight: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    return weight * hidden / (hidden.square().mean(dim=1, keepdim=True) + config["rms_norm_eps"]).sqrt()


def _attention(hidden: torch.Tensor, mine: Tensors, config: dict[str, Any]) -> torch.Tensor:
    """Causal attention [S, H], head by head; the first H rows of the fused weight make queries, the last H values."""
    length, width = hidden.shape
    size = width // config["num_attention_heads"]
    fused = hidden @ mine["self_attn.W_pack"].T
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    found = []
    for start in range(0, width, size):
        query, key, value = (fused[:, part * width + start : part * width + start + size] for part in range(3))
        scores = _rotated(query) @ _rotated(key).T / math.sqrt(size)
        found.append(scores.masked_fill(future, -torch.inf).softmax(dim=1) @ value)
    return torch.cat(found, dim=1) @ mine["self_attn.o_proj"].T


def _rotated(states: torch.Tensor) -> torch.Tensor:
    """Rotary positions of states [S, D]: element i turns with element i + D/2, by position / 10000^(2i/D)."""
    length, size = states.shape
    half = size // 2
    angle = torch.arange(length)[:, None] / 10000 ** (2 * torch.arange(half) / size)
    first, second = states[:, :half], states[:, half:]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=1)
