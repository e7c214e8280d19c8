"""The weights of a model folder on their way into a model: what is read, how, and whether all of it found its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel

from hpcsft.errors import InputError
from hpcsft.model_folder.sizes import OTHERS
from hpcsft.model_folder.weights import LEFT_OVER, find_weights, read_weights


def loading_options(path: str) -> dict[str, Any]:
    """What `AutoModelForCausalLM.from_pretrained` needs to know of the weights in the folder `path`.

    {} but for a GGUF file, whose `gguf_file` is for `AutoConfig.from_pretrained`, too. transformers reads a .bin file
    with weights_only whatever it is told; before that its names are read here, so that a file that asks for more, is
    cut off or missing gets the error that the login node gives: InputError, as `read_weights` raises it.
    """
    file = find_weights(Path(path))
    read_weights(file)
    if file.suffix != ".gguf":
        return {}
    options: dict[str, Any] = {"gguf_file": file.name}
    if hasattr(transformers, "GgufConfig"):  # without it quantized weights would stay so, and could not be trained
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return options


def check_loaded(path: str, model: PreTrainedModel, found: Mapping[str, Collection[Any]]) -> None:
    """InputError unless every weight of `model` came from the folder, and every weight of the folder went into it.

    `found` is transformers' loading info; the model was loaded with `ignore_mismatched_sizes=True`, because what
    transformers itself says then is in its log. It goes on with random numbers for what is missing, and without what
    it has no place for.
    """
    if missing := sorted(found["missing_keys"]):
        raise InputError(f"{path}: {len(missing)} weights are missing, the first: {missing[0]}", "download it again")
    if mismatched := sorted(found["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        sizes = f"{name} is {list(stored)} instead of {list(expected)}"
        message = f"{path}: {len(mismatched)} weights have other sizes than config.json tells, the first: {sizes}"
        raise InputError(message, OTHERS)
    if model.config.tie_word_embeddings and len(_embeddings(model)) > 1:  # transformers leaves them apart then
        message = f"{path}: config.json ties embedding and output layer, and the weights hold two different ones"
        raise InputError(message, "set tie_word_embeddings to false in config.json, or remove lm_head.weight")
    if unexpected := sorted(name for name in found["unexpected_keys"] if not LEFT_OVER.search(name)):
        message = (
            f"{path}: {len(unexpected)} weights have no place in {type(model).__name__}, the first: {unexpected[0]}"
        )
        raise InputError(message, OTHERS)


def free_padding_row(model: PreTrainedModel) -> None:
    """Let the padding token's row of the embedding learn like any other.

    torch leaves `padding_idx` without a gradient. Where the padding token is eos, as in many folders without one of
    their own, or the last token of the vocabulary, which -1 stands for in early Llama folders, a token of real text
    would never be learnt. True padding needs no such care: it is masked, so that its gradient is zero anyway.
    """
    embedding = model.get_input_embeddings()
    if hasattr(embedding, "padding_idx"):
        embedding.padding_idx = None


def _embeddings(model: PreTrainedModel) -> set[int]:
    """Identities of the weights of embedding and output layer: one where they are tied, or there is no output layer."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return {id(layer.weight) for layer in layers if layer is not None}
