"""Model folders that hold as little as a check looks at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcsft.errors import InputError
from hpcsft.model_folder.check import check_model

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
TOKENIZER = {
    "model": {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1, "a": 2}, "merges": []},
    "added_tokens": [{"id": 0, "content": "<s>"}, {"id": 1, "content": "</s>"}],
}


def safetensors(tensors: Mapping[str, Sequence[int]]) -> bytes:
    """A whole safetensors file with float32 zeros of the given shapes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def write(folder: Path, name: str, value: Any) -> None:
    """Write JSON."""
    (folder / name).write_text(json.dumps(value))


def make_folder(folder: Path) -> Path:
    """The least that counts as a model folder: 3 x 2 + 5 parameters and three tokens."""
    folder.mkdir()
    write(folder, "config.json", LLAMA)
    (folder / "model.safetensors").write_bytes(safetensors({"model.embed_tokens.weight": [3, 2], "b": [5]}))
    write(folder, "tokenizer.json", TOKENIZER)
    write(folder, "tokenizer_config.json", {"eos_token": "</s>"})
    return folder


def refused(folder: Path, text: str) -> str:
    """Check that the model is refused with `text`, an error that names the field and the folder; returns the hint."""
    with pytest.raises(InputError, match=text) as caught:
        check_model(str(folder), "model.path")
    assert caught.value.message.startswith("model.path: ")
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.hint or ""


def message_piece(field: int, value: bytes | int) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, bytes):
        return bytes([field << 3 | 2]) + number(len(value)) + value
    return bytes([field << 3]) + number(value)


def number(value: int) -> bytes:
    """A protobuf number."""
    head = b""
    while value >= 0x80:
        head += bytes([value & 0x7F | 0x80])
        value >>= 7
    return head + bytes([value])
