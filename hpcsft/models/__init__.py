"""Models and tokenizers: `load_model` and `load_tokenizer` are the one way in, for training, generation and judging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcsft.models.load import load_model
    from hpcsft.models.tokenizer import load_tokenizer

__all__ = ["load_model", "load_tokenizer"]


def __getattr__(name: str) -> Any:
    """Loaded when they are asked for: a process that only tokenizes needs no torch."""
    if name == "load_model":
        from hpcsft.models.load import load_model

        return load_model
    if name == "load_tokenizer":
        from hpcsft.models.tokenizer import load_tokenizer

        return load_tokenizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
