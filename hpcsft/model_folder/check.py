"""A model folder, looked at on the login node before anything is queued."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcsft.errors import InputError
from hpcsft.model_folder.architecture import check_architecture
from hpcsft.model_folder.reading import AGAIN, Tensor, read_object
from hpcsft.model_folder.safetensors_header import read_safetensors
from hpcsft.model_folder.vocabulary import check_gguf_tokenizer, check_tokenizer, has_tokenizer
from hpcsft.model_folder.weights import find_weights, read_weights
from hpcsft.model_shape import ModelShape
from hpcsft.records import Record

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "token_embd.weight")
"""How the names of tables of token embeddings end."""


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
        return _look_at(Path(path))
    except InputError as error:
        raise InputError(f"{where}: {error.message}", error.hint) from None


def _look_at(folder: Path) -> ModelFacts:
    if not folder.is_dir():
        hint = "give a folder in Hugging Face format; compute nodes often have no internet, so download it first"
        raise InputError(f"no such folder: {folder}", hint)
    config: dict[str, Any] = {}
    architecture = ""
    if (folder / "adapter_config.json").exists():
        return _look_at_base(folder)
    if (folder / "config.json").exists():
        config = read_object(folder / "config.json")
        architecture = check_architecture(config, folder)
    elif not any(folder.glob("*.gguf")):
        raise InputError(f"{folder}: no config.json inside", "is this a Hugging Face model folder?")
    weights = read_weights(find_weights(folder))
    if weights.gguf is not None:
        config = weights.gguf.config()
        architecture = check_architecture(config, folder)
    rows = _embedding_rows(weights.tensors, config, folder)
    if weights.gguf is not None and not has_tokenizer(folder):
        check_gguf_tokenizer(weights.gguf, weights.files[0], rows)
    else:
        check_tokenizer(folder, rows)
    return ModelFacts(
        architecture=architecture,
        num_parameters=weights.num_parameters,
        shape=ModelShape.from_config(config),
        weights_bytes=sum(file.stat().st_size for file in weights.files),
        model_type=config.get("model_type"),
        quantization=_quantization(config),
    )


def _quantization(config: Mapping[str, Any]) -> str | None:
    stated = config.get("quantization_config")
    return str(stated.get("quant_method", "unknown")) if isinstance(stated, dict) else None


def _look_at_base(folder: Path) -> ModelFacts:
    """Of an adapter: what its base model tells."""
    settings = folder / "adapter_config.json"
    base = read_object(settings, "adapter").get("base_model_name_or_path")
    if not isinstance(base, str) or not Path(base).is_dir():
        hint = f"set base_model_name_or_path in {settings} to the folder of the base model"
        raise InputError(f"{folder}: the base model of this adapter is not there: no such folder: {base}", hint)
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise InputError(f"{folder}: no weights inside: {weights.name} is missing", AGAIN)
    read_safetensors(weights)
    return _look_at(Path(base))


def _embedding_rows(tensors: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> int | None:
    """Rows of the table of token embeddings. InputError if config.json tells another number."""
    found = [tensor.shape[0] for name, tensor in tensors.items() if name.endswith(EMBEDDINGS) and tensor.shape]
    stated = config.get("vocab_size")
    if not isinstance(stated, int):
        return found[0] if found else None
    if found and found[0] != stated:
        message = f"{folder}: the embedding has {found[0]:,} rows, config.json says {stated:,} (vocab_size)"
        raise InputError(message, "config and weights are of different models or versions: download both again")
    return stated
