"""Do the weights of a folder have the sizes that its config.json describes? Only where both are known for sure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from hpcsft.errors import InputError
from hpcsft.model_folder.reading import Tensor
from hpcsft.model_folder.safetensors_header import extents
from hpcsft.model_folder.weights import Weights
from hpcsft.model_shape import ModelShape

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "token_embd.weight")
"""How the names of tables of token embeddings end."""
HEAD = "lm_head.weight"
MATRIX = re.compile(r"(?:^|\.)(?:layers\.\d+\.(\w+\.\w+)|(embed_tokens|lm_head))\.weight$")
OTHERS = "config and weights are of different models or versions: download both again"
OWN_HEAD_DIM = ("gemma", "gemma2", "qwen3")
"""Model types that do not take hidden_size / heads where config.json leaves head_dim open."""
OWN_KV_HEADS = ("gemma", "gemma2", "mistral", "qwen2", "qwen3", "smollm3")
"""Model types that do not take all heads where config.json leaves num_key_value_heads open."""
PIECES, PIECE_BYTES = 16, 4096


def check_sizes(weights: Weights, config: Mapping[str, Any], folder: Path) -> None:
    """InputError if `weights` cannot be those of the model in `config`; nothing is said of what is not known.

    Quantized weights are packed, and GGUF files have no config.json of their own.
    """
    shape = ModelShape.from_config(config)
    _check_tie(weights, config, shape, folder)
    if shape is None or weights.gguf is not None or config.get("quantization_config") or not _is_whole(config):
        return
    for name, tensor in weights.tensors.items():
        wanted = _wanted(name, shape)
        if wanted and tensor.shape != wanted:
            message = f"{folder}: {name} is {list(tensor.shape)}, config.json describes {list(wanted)}"
            raise InputError(message, OTHERS)
    found = weights.num_parameters
    if shape.tied:
        found -= _second_head(weights)
    if found != shape.num_parameters:
        message = f"{folder}: the weights hold {found:,} parameters, config.json describes {shape.num_parameters:,}"
        raise InputError(message, f"{OTHERS}, or weights are missing or quantized")


def embedding(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the table of token embeddings."""
    return next((name for name, tensor in tensors.items() if name.endswith(EMBEDDINGS) and tensor.shape), None)


def _is_whole(config: Mapping[str, Any]) -> bool:
    """Are the sizes told, rather than left to a class with a mind of its own?"""
    kind = config.get("model_type")
    if kind in OWN_HEAD_DIM and config.get("head_dim") is None:
        return False
    return kind not in OWN_KV_HEADS or config.get("num_key_value_heads") is not None


def _wanted(name: str, shape: ModelShape) -> tuple[int, int] | None:
    """Rows and columns of the weight called `name`; None if it is none of the large ones."""
    found = MATRIX.search(name)
    if not found:
        return None
    hidden, inner, query, kv = shape.hidden_size, shape.intermediate_size, shape.query_size, shape.kv_size
    matrices = {
        **{"self_attn.q_proj": (query, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden)},
        **{"self_attn.W_pack": (query + 2 * kv, hidden), "self_attn.qkv_proj": (query + 2 * kv, hidden)},
        **{"self_attn.o_proj": (hidden, query), "mlp.down_proj": (hidden, inner)},
        **{"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.gate_up_proj": (2 * inner, hidden)},
        **{"embed_tokens": (shape.vocab_size, hidden), "lm_head": (shape.vocab_size, hidden)},
    }
    return matrices.get(found[1] or found[2])


def _second_head(weights: Weights) -> int:
    """Elements of an output layer that is stored beside the embedding that it is tied to."""
    first = embedding(weights.tensors)
    if first is None or HEAD not in weights.tensors or weights.tensors[HEAD].place == weights.tensors[first].place:
        return 0
    return math.prod(weights.tensors[HEAD].shape)


def _check_tie(weights: Weights, config: Mapping[str, Any], shape: ModelShape | None, folder: Path) -> None:
    """InputError if embedding and output layer are tied and two different ones are stored.

    transformers leaves them apart then, and others tie them: two models from one folder.
    """
    stated = config.get("tie_word_embeddings")
    tied = stated is True or (stated is None and shape is not None and shape.tied)
    first = embedding(weights.tensors)
    if not tied or first is None or not _second_head(weights):
        return
    if _differ(weights.tensors[first].place, weights.tensors[HEAD].place):
        message = f"{folder}: config.json ties embedding and output layer, and the weights hold two different ones"
        raise InputError(message, "set tie_word_embeddings to false in config.json, or remove lm_head.weight")


def _differ(one: Any, other: Any) -> bool:
    """Do two tensors in safetensors files, as they are stored, differ where they are looked at? False if unknown."""
    samples = []
    for file, name, *_ in (one, other):
        if file.suffix != ".safetensors":
            return False
        begin, end = extents(file)[name]
        with open(file, "rb") as stream:
            samples.append((end - begin, [_piece(stream, begin, end, number) for number in range(PIECES)]))
    return samples[0][0] == samples[1][0] and samples[0] != samples[1]


def _piece(stream: BinaryIO, begin: int, end: int, number: int) -> bytes:
    stream.seek(begin + (end - begin) * number // PIECES)
    return stream.read(min(PIECE_BYTES, end - stream.tell()))
