"""The one way in to models, for training, generation and judging. Never from the network."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils.logging import disable_progress_bar

from hpcsft.errors import InputError
from hpcsft.models.attention import attend_by_row, choose_attention
from hpcsft.models.heads import install_loss_head
from hpcsft.models.tokenizer import check_folder, first_line

disable_progress_bar()  # its control characters fill log files


def load_model(path: str, dtype: str = "bfloat16", attention: str = "auto", training: bool = False) -> PreTrainedModel:
    """The causal language model in the folder `path`, on the CPU. InputError if it does not load.

    `dtype` is "bfloat16" or "float32"; `attention` as in the spec's `model.attention`, chosen for `training` or not.
    """
    check_folder(path)
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
        model, found = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            attn_implementation=choose_attention(attention, dtype, model_class, training),
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise InputError(f"{path}: the model does not load: {first_line(error)}") from None
    if found["missing_keys"]:  # transformers would go on with random numbers
        names = sorted(found["missing_keys"])
        raise InputError(f"{path}: {len(names)} weights are missing, the first: {names[0]}", "download it again")
    return model


def load_for_training(path: str, dtype: str, attention: str) -> PreTrainedModel:
    """The same for `models.loss.supervised_loss`: attention within rows, loss instead of logits."""
    model = load_model(path, dtype, attention, training=True)
    attend_by_row(model)
    install_loss_head(model)
    return model.train()


def pick_device() -> torch.device:
    """The GPU of this task if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
