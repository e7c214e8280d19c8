"""A model folder, looked at on the login node before anything is queued."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcsft.errors import InputError
from hpcsft.model_folder.adapter import base_of, check_adapter, is_adapter
from hpcsft.model_folder.architecture import check_architecture
from hpcsft.model_folder.reading import Tensor, read_object, unreadable
from hpcsft.model_folder.sizes import OTHERS, check_sizes, embedding
from hpcsft.model_folder.vocabulary import FILES, SETTINGS, check_gguf_tokenizer, check_tokenizer, has_tokenizer
from hpcsft.model_folder.weights import find_weights, read_weights
from hpcsft.model_shape import ModelShape
from hpcsft.records import Record

READ = ("config.json", "generation_config.json", "chat_template.jinja", "chat_template.json", *SETTINGS, *FILES)
"""Files of a folder, beside the weights, that are read if they are there."""


class ModelFacts(Record):
    """What a model folder tells without loading it."""

    architecture: str
    num_parameters: int | None
    """From the headers of the weights."""
    shape: ModelShape | None = None
    """From config.json or the GGUF file; None for a model of another kind than Llama's."""
    weights_bytes: int | None = None
    """Of the files that hold the weights."""
    model_type: str | None = None
    """What transformers calls the architecture."""
    quantization: str | None = None
    """How the weights are quantized, such as gptq; None if they are not, or are expanded when they are loaded."""


def check_model(path: str, where: str) -> ModelFacts:
    """A folder with a causal language model and its tokenizer, or InputError, which names `where`.

    Nothing heavy is imported, and of the weights only the headers are read.
    """
    try:
        facts, _ = _look_at(Path(path))
        return facts
    except InputError as error:
        raise InputError(f"{where}: {error.message}", error.hint) from None
    except OSError as error:
        wrong = unreadable(Path(error.filename or path), error)
        raise InputError(f"{where}: {wrong.message}", wrong.hint) from None


def _look_at(folder: Path, tokenizer: bool = True) -> tuple[ModelFacts, int | None]:
    """What it tells, and the rows of the table of token embeddings if those are known. Is its `tokenizer` used?"""
    _check_folder(folder)
    if is_adapter(folder):
        return _look_at_adapter(folder, tokenizer)
    config: dict[str, Any] = {}
    architecture = ""
    if (folder / "config.json").exists():
        config = read_object(folder / "config.json")
        architecture = check_architecture(config, folder)
    elif not any(folder.glob("*.gguf")):
        raise InputError(f"{folder}: no config.json inside", "is this a Hugging Face model folder?")
    read_object(folder / "generation_config.json")
    weights = read_weights(find_weights(folder))
    if weights.gguf is not None:
        config = weights.gguf.config()
        architecture = check_architecture(config, folder)
    rows = _embedding_rows(weights.tensors, config, folder)
    check_sizes(weights, config, folder)
    if tokenizer and weights.gguf is not None and not has_tokenizer(folder):
        check_gguf_tokenizer(weights.gguf, weights.files[0], rows)
    elif tokenizer:
        check_tokenizer(folder, rows)
    facts = ModelFacts(
        architecture=architecture,
        num_parameters=weights.num_parameters,
        shape=ModelShape.from_config(config),
        weights_bytes=sum(file.stat().st_size for file in weights.files),
        model_type=config.get("model_type"),
        quantization=_quantization(config),
    )
    return facts, rows


def _check_folder(folder: Path) -> None:
    """InputError or OSError unless `folder` can be listed and entered, and its links lead somewhere."""
    if not folder.is_dir():
        hint = "give a folder in Hugging Face format; compute nodes often have no internet, so download it first"
        raise InputError(f"no such folder: {folder}", hint)
    os.listdir(folder)
    for name in READ:
        try:
            os.stat(folder / name)
        except FileNotFoundError as error:
            if (folder / name).is_symlink():
                raise unreadable(folder / name, error) from None


def _quantization(config: Mapping[str, Any]) -> str | None:
    stated = config.get("quantization_config")
    return str(stated.get("quant_method", "unknown")) if isinstance(stated, dict) else None


def _look_at_adapter(folder: Path, tokenizer: bool) -> tuple[ModelFacts, int | None]:
    """What its base model tells; the tokenizer is its own."""
    base = base_of(folder)
    facts, rows = _look_at(Path(base), tokenizer=False)
    check_adapter(folder)
    if tokenizer and not has_tokenizer(folder):
        hint = f"copy the tokenizer's files from {base}, or whatever tokenizer it was trained with"
        raise InputError(f"{folder}: no tokenizer inside, beside the adapter", hint)
    if tokenizer:
        check_tokenizer(folder, rows)
    return facts, rows


def _embedding_rows(tensors: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> int | None:
    """Rows of the table of token embeddings. InputError if config.json tells another number."""
    name = embedding(tensors)
    found = tensors[name].shape[0] if name else None
    stated = config.get("vocab_size")
    if not isinstance(stated, int):
        return found
    if found is not None and found != stated:
        message = f"{folder}: the embedding has {found:,} rows, config.json says {stated:,} (vocab_size)"
        raise InputError(message, OTHERS)
    return stated
