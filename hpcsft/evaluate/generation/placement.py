"""Which GPUs hold the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from accelerate import dispatch_model, infer_auto_device_map
from transformers import PreTrainedModel

from hpcsft.errors import StageError

WEIGHTS_SHARE = 0.8
"""Of the free memory of a GPU that weights may take; the rest is for keys, values and what is computed."""


def fits(model_bytes: int, free_bytes: Sequence[int]) -> int:
    """How many of the GPUs the model takes, 0 if it does not fit on all of them together."""
    room = 0.0
    for number, free in enumerate(free_bytes, start=1):
        room += free * WEIGHTS_SHARE
        if model_bytes <= room:
            return number
    return 0


def place(model: PreTrainedModel, say: Callable[[str], None]) -> PreTrainedModel:
    """`model` on a GPU of this task, or layer by layer on several if it does not fit on one; without any, as it is.

    StageError if it does not fit on all of them together.
    """
    free = [torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())]
    if not free:
        return model
    model_bytes = model.get_memory_footprint()
    number = fits(model_bytes, free)
    if number == 0:
        raise StageError(
            f"the model of {model_bytes / 2**30:.0f} GiB does not fit on the GPUs of this task, of which "
            f"{sum(free) / 2**30:.0f} GiB are free",
            "set cluster.generate.gpus_per_node to more GPUs",
        )
    if number == 1:
        if len(free) > 1:
            say(f"{len(free)} GPUs, of which 1 is used: a larger evaluate.shards uses more of them")
        return model.to("cuda:0")
    memory = {place: int(free[place] * WEIGHTS_SHARE) for place in range(len(free))}
    layers = infer_auto_device_map(model, max_memory=memory, no_split_module_classes=list(model._no_split_modules))
    say(f"the model is on {len(set(layers.values()))} GPUs, layer by layer")
    return dispatch_model(model, device_map=layers)
