"""Where the libraries of Hugging Face keep what they have fetched, as their documentation tells it. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/run")
"""Folders that every node has for itself, by the Filesystem Hierarchy Standard."""


def hub_cache(environment: Mapping[str, str]) -> Path:
    """Where `huggingface_hub` keeps models."""
    cache = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    return Path(cache or os.path.join(_home(environment), "hub")).expanduser().absolute()


def datasets_cache(environment: Mapping[str, str]) -> Path:
    """Where `datasets` keeps what it has downloaded and prepared."""
    cache = environment.get("HF_DATASETS_CACHE") or os.path.join(_home(environment), "datasets")
    return Path(cache).expanduser().absolute()


def is_node_local(path: str | os.PathLike[str], environment: Mapping[str, str]) -> bool:
    """Is `path` in a folder that compute nodes do not share with the login node, as far as its name tells?"""
    real = os.path.realpath(path)
    folders = [*NODE_LOCAL, *(environment[name] for name in ("TMPDIR", "SLURM_TMPDIR") if environment.get(name))]
    return any(os.path.commonpath([real, os.path.realpath(folder)]) == os.path.realpath(folder) for folder in folders)


def _home(environment: Mapping[str, str]) -> str:
    home = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return environment.get("HF_HOME") or os.path.join(home, "huggingface")
