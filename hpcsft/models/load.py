"""The one way in to models, for training, generation and judging. Never from the network, never with code of theirs."""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Iterator
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils.logging import disable_progress_bar, get_verbosity, set_verbosity, set_verbosity_error

from hpcsft.errors import InputError
from hpcsft.model_folder.adapter import base_of, is_adapter
from hpcsft.models import baichuan, lora  # noqa: F401 (transformers knows Baichuan then)
from hpcsft.models.attention import attend_by_row, choose_attention
from hpcsft.models.heads import fold_norm, install_loss_head
from hpcsft.models.hollow import hollow
from hpcsft.models.tokenizer import check_folder, first_line
from hpcsft.models.weight_files import check_loaded, free_padding_row, loading_options
from hpcsft.spec.model import LoraSpec

disable_progress_bar()  # its control characters fill log files

UNREADABLE = (
    *(OSError, ValueError, KeyError, RuntimeError, ImportError, EOFError, TypeError, AttributeError),
    *(SafetensorError, StrictDataclassError, pickle.UnpicklingError),
)
"""What transformers raises for a folder that it cannot use."""


def load_model(path: str, dtype: str = "bfloat16", attention: str = "auto", training: bool = False) -> PreTrainedModel:
    """The causal language model in the folder `path`, on the CPU. InputError if it does not load.

    `dtype` is "bfloat16" or "float32"; `attention` as in the spec's `model.attention`, chosen for `training` or not. A
    folder with an adapter is its base model with the adapter merged into it.
    """
    model = _read(path, dtype, attention, training)
    if not training:
        fold_norm(model)
    return model


def load_for_training(
    path: str, dtype: str, attention: str, adapters: LoraSpec | None = None, seed: int = 0, read: bool = True
) -> PreTrainedModel:
    """The same for `models.loss.supervised_loss`: attention within rows, loss instead of logits, adapters if asked for.

    Without `read` no weight is read, and none takes memory: parameters have shape and type, and no values of their own.
    What the adapters start from depends on `seed` alone.
    """
    load = _read if read else _unread
    model = load(path, dtype, attention, True)
    if adapters:
        lora.add_adapters(model, adapters, seed)
    free_padding_row(model)
    attend_by_row(model)
    install_loss_head(model)
    return model.train()


def pick_device() -> torch.device:
    """The GPU of this task if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _read(path: str, dtype: str, attention: str, training: bool) -> PreTrainedModel:
    if is_adapter(path):
        return lora.load_adapter(path, lambda base: _read(base, dtype, attention, training))
    options, config = _look_at(path, training)
    try:
        with _quiet():
            model, found = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=getattr(torch, dtype),
                attn_implementation=_attention(config, attention, dtype, training),
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # `check_loaded` says which they are
                **options,
            )
    except UNREADABLE as error:
        raise InputError(f"{path}: the model does not load: {first_line(error)}") from None
    check_loaded(path, model, found)
    return model


def _unread(path: str, dtype: str, attention: str, training: bool) -> PreTrainedModel:
    """What `_read` returns, its parameters without values."""
    while is_adapter(path):
        path = base_of(path)
    _, config = _look_at(path, training)
    implementation = _attention(config, attention, dtype, training)
    return hollow(
        lambda: AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), attn_implementation=implementation, trust_remote_code=False
        )
    )


def _look_at(path: str, training: bool) -> tuple[dict[str, Any], PreTrainedConfig]:
    """How the weights in the folder are to be read, and its config."""
    check_folder(path)
    options = loading_options(path)
    gguf = {name: options[name] for name in ("gguf_file",) if name in options}
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False, **gguf)
    except UNREADABLE as error:
        raise InputError(f"{path}: the model does not load: {first_line(error)}") from None
    if training and getattr(config, "quantization_config", None) and not gguf:
        raise InputError(f"{path}: quantized weights cannot be trained", "take the model as it was before that")
    if gguf:
        options["config"] = config  # to parse the file once more takes seconds
    return options, config


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without tables and progress bars of transformers: what matters of them `check_loaded` says in a line."""
    verbosity = get_verbosity()
    set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        set_verbosity(verbosity)


def _attention(config: PreTrainedConfig, attention: str, dtype: str, training: bool) -> str:
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return choose_attention(attention, dtype, model_class, training)
