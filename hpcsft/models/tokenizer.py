"""The one way in to tokenizers. It needs no torch, which takes several times longer to load than the rest."""

from __future__ import annotations

import os
import sys
from typing import Any

from hpcsft.errors import InputError


def without_torch() -> None:
    """Let this process do without torch, as transformers supports it for tokenizers: it starts in a third of the time.

    For commands that only tokenize; to be called before anything loads torch.
    """
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # what importlib takes as "not installed"
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would remark on that


def load_tokenizer(path: str) -> Any:
    """The fast tokenizer in the folder `path`, never from the network; InputError if there is none."""
    from transformers import AutoTokenizer  # heavy, and `without_torch` has to come first

    check_folder(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: the tokenizer does not load: {first_line(error)}") from None
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(f"{path}: no fast tokenizer", "a tokenizer.json is needed; AutoTokenizer can write one")
    return tokenizer


def check_folder(path: str) -> None:
    """InputError if there is no folder `path`: transformers would take it for a name on the hub."""
    if not os.path.isdir(path):
        raise InputError(f"{path}: no such folder", "compute nodes must see it under this very path")


def first_line(error: Exception) -> str:
    """An error of transformers, which tend to be essays, in one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
