"""Which files of a model's repository are fetched. Pure.

What describes the model and its tokenizer, and weights of one kind. Never code: no file of it is brought here at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

SMALL = re.compile(r"[^/]+\.(json|jinja|model|txt)|tokenizer\.[^/]+")
"""Configuration, tokenizer, templates, and the indexes of weights."""
KINDS = (
    re.compile(r"adapter_model\.safetensors"),
    re.compile(r"model\.safetensors"),
    re.compile(r"model-[^/]*\.safetensors"),
    re.compile(r"pytorch_model\.bin"),
    re.compile(r"pytorch_model-[^/]*\.bin"),
    re.compile(r"[^/]+\.gguf"),
)
"""Kinds of weights; the first of which there is one is taken, as transformers does."""


def small_files(names: Collection[str]) -> list[str]:
    """All but the weights."""
    return sorted(name for name in names if SMALL.fullmatch(name) and not name.endswith((".py", ".bin", ".gguf")))


def weight_files(names: Collection[str]) -> list[str]:
    """The weights; none if there are none, or several in GGUF, which are the same ones in other types."""
    for kind in KINDS:
        if kind is KINDS[0] and "adapter_config.json" not in names:
            continue
        if found := sorted(name for name in names if kind.fullmatch(name)):
            return found if kind is not KINDS[-1] or len(found) == 1 else []
    return []


def missing_parts(folder: Path) -> list[str]:
    """What is not in `folder` of the weights; ValueError if the index of their parts is not whole."""
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    found = weight_files(names)
    if not found:
        return ["the weights"]
    stem, dash, _ = found[0].partition("-")
    index = folder / f"{stem}{Path(found[0]).suffix}.index.json"
    if not dash or not index.is_file():
        return []
    listed = json.loads(index.read_text(encoding="utf-8"))
    parts = listed.get("weight_map") if isinstance(listed, dict) else None
    wanted = {str(name) for name in parts.values()} if isinstance(parts, dict) else set()
    return sorted(wanted - set(names))


def total_bytes(sizes: Mapping[str, int], names: Collection[str]) -> int:
    """Bytes of the files `names` together."""
    return sum(sizes[name] for name in names)
