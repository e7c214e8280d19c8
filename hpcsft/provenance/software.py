"""Versions of what is installed, without importing any of it, and the machine that it runs on."""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "transformers",
    "deepspeed",
    "accelerate",
    "tokenizers",
    "datasets",
    "submitit",
    "pydantic",
    "rich",
    "pyarrow",
    "numpy",
)
"""What decides results, or what becomes of them, in every run."""

SOMETIMES = ("peft", "lm_eval", "openai", "anthropic", "flash_attn", "liger_kernel", "cut_cross_entropy", "triton")
"""What may decide them; told where it is installed."""

_FOLDER = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)\.(?:dist|egg)-info")


def installed() -> dict[str, str]:
    """Every installed distribution and its version, by normalized name (peft, flash_attn), as `pip list` knows them.

    Read from the names of their folders: opening the metadata of each would take ten times as long.
    """
    found: dict[str, str] = {}
    for place in sys.path:
        try:
            names = os.listdir(place or ".")
        except OSError:
            continue
        for match in filter(None, map(_FOLDER.fullmatch, names)):
            found.setdefault(re.sub(r"[-_.]+", "_", match["name"]).lower(), match["version"])
    return dict(sorted(found.items()))


def packages(everything: dict[str, str]) -> dict[str, str | None]:
    """Of `installed()` what decides results: PACKAGES (None where missing), SOMETIMES, and NVIDIA's libraries."""
    chosen: dict[str, str | None] = {name: everything.get(name) for name in PACKAGES}
    chosen.update({name: everything[name] for name in SOMETIMES if name in everything})
    wheels = ("nvidia_nccl", "nvidia_cuda_runtime", "nvidia_cudnn", "nvidia_cublas")
    return {**chosen, **{name: version for name, version in everything.items() if name.startswith(wheels)}}


def python() -> dict[str, str]:
    """Version and executable of the interpreter."""
    return {"version": platform.python_version(), "executable": sys.executable}


def torch_build() -> dict[str, Any]:
    """cuda, hip and git_version that PyTorch was built with, from its file of versions; empty without PyTorch."""
    spec = importlib.util.find_spec("torch")
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8") if spec and spec.origin else ""
    except OSError:
        return {}
    found = re.findall(r"^(cuda|hip|git_version)\b[^=\n]*= *(None|'[^'\n]*')$", text, re.MULTILINE)
    return {name: ast.literal_eval(value) for name, value in found}


def machine(root: Path = Path("/")) -> dict[str, Any]:
    """kernel, cpu, and of NVIDIA's GPUs the driver and all models on this node, as the kernel tells them."""
    driver = _search(r"Module\s+(?:for \S+\s+)?(\d[\d.]*)", root / "proc/driver/nvidia/version")
    cards = sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
    return {
        "kernel": platform.release(),
        "cpu": _search(r"model name\s*: (.*)", root / "proc/cpuinfo") or platform.machine(),
        "driver": driver,
        "gpus": [_search(r"Model:\s*(.*)", card) for card in cards],
    }


def _search(pattern: str, file: Path) -> str | None:
    try:
        match = re.search(pattern, file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return match[1].strip() if match else None
