"""The header of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), read without the package gguf.

It holds what config.json and the tokenizer's files hold in other folders.
"""

from __future__ import annotations

import importlib.util
import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.errors import InputError
from hpcsft.model_folder.reading import Tensor, not_whole

NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""struct's letter for each type of a value."""
STRING, ARRAY = 8, 9
BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 30: (1, 2)},  # float32, float16, bfloat16
    **{2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)},  # Q4_0 to Q8_0
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210)},  # Q2_K to Q6_K
}
"""Elements and bytes of a block, by the type of a tensor; those of other types are not counted."""

MODEL_TYPES = {
    **{name: name for name in ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "falcon", "bloom", "gpt2")},
    **{name: name for name in ("stablelm", "starcoder2", "nemotron", "lfm2")},
    **{"gemma3": "gemma3_text", "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe"},
}
"""What transformers calls llama.cpp's architectures, for those that write text and that it reads."""

SIZES = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
}
INSTEAD = "use the model's safetensors files"


class Gguf(NamedTuple):
    """The header of a file."""

    fields: Mapping[str, Any]
    tensors: dict[str, Tensor]
    """By llama.cpp's names; shapes in torch's order."""

    @property
    def architecture(self) -> str:
        """As llama.cpp calls it."""
        return str(self.fields.get("general.architecture"))

    def config(self) -> dict[str, Any]:
        """What a config.json would tell of the shape, for the architectures in MODEL_TYPES."""
        values = {ours: self.fields.get(f"{self.architecture}.{theirs}") for theirs, ours in SIZES.items()}
        embedding = self.tensors.get("token_embd.weight")
        return {
            **values,
            "model_type": MODEL_TYPES.get(self.architecture),
            "vocab_size": embedding.shape[0] if embedding else None,
            "tie_word_embeddings": "output.weight" not in self.tensors,
        }


def read_gguf(file: Path) -> Gguf:
    """Fields and tensors of `file`; InputError if it is not whole, does not load, or would load as another model."""
    try:
        with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            gguf = _read(memory, file)
    except (OSError, ValueError, LookupError, TypeError, OverflowError, struct.error):
        raise not_whole(file, "GGUF") from None
    name = gguf.architecture
    if name not in MODEL_TYPES:
        hint = f"those of {', '.join(sorted(MODEL_TYPES))} are; {INSTEAD}"
        raise InputError(f"{file}: GGUF files of architecture {name} are not supported", hint)
    if "rope_freqs.weight" in gguf.tensors or gguf.fields.get(f"{name}.rope.scaling.type") not in (None, "none"):
        what = "its rotary positions are scaled, which transformers does not read from GGUF files"
        raise InputError(f"{file}: {what}", INSTEAD)
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"{file}: GGUF files need the package gguf", "pip install gguf")
    return gguf


def _read(memory: mmap.mmap, file: Path) -> Gguf:
    cursor = _Cursor(memory)
    magic, version, num_tensors, num_fields = cursor.take("4sIQQ")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError("no GGUF")
    fields = {}
    for _ in range(num_fields):
        name = cursor.string()
        fields[name] = cursor.value(cursor.take("I")[0])
    tensors, end = {}, 0
    for _ in range(num_tensors):
        name = cursor.string()
        (num_dimensions,) = cursor.take("I")
        sizes = cursor.take(f"{num_dimensions}Q")
        kind, offset = cursor.take("IQ")
        tensors[name] = Tensor(tuple(reversed(sizes)), (file, name))
        elements, size = BLOCKS.get(kind, (1, 0))
        end = max(end, offset + math.prod(sizes) // elements * size)
    alignment = fields.get("general.alignment", 32)
    if len(memory) < -(-cursor.position // alignment) * alignment + end:
        raise ValueError("cut off")
    return Gguf(fields, tensors)


class _Cursor:
    """A place in the header."""

    def __init__(self, memory: mmap.mmap):
        self.memory, self.position = memory, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self.memory, self.position)
        self.position += struct.calcsize(f"<{layout}")
        return values

    def string(self) -> str:
        (length,) = self.take("Q")
        return self.take(f"{length}s")[0].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.take(NUMBERS[kind])[0]
        kind, length = self.take("IQ")
        if kind == STRING:
            return [self.string() for _ in range(length)]
        return self.take(f"{length}{NUMBERS[kind]}")
