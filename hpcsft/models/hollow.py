"""Models whose parameters have no values yet: all but one rank wait for what that one reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from accelerate import init_empty_weights
from transformers import PreTrainedModel


def hollow(build: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """What `build` returns, its parameters hollow: of their shape and type, all in the memory of one element each.

    Buffers have their values. A hollow parameter is on the CPU, not on the meta device, so that `data` can be set.
    """
    with init_empty_weights(include_buffers=False):
        model = build()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            empty = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
            setattr(module, name, torch.nn.Parameter(empty, parameter.requires_grad))
    model.tie_weights()
    return model


def filled(model: torch.nn.Module, device: torch.device) -> Iterator[torch.nn.Parameter]:
    """Every parameter, one after the other, with memory of its own on `device` if it was hollow; nothing is in it."""
    for _, parameter in model.named_parameters():
        if is_hollow(parameter):
            parameter.data = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
        yield parameter


def is_hollow(parameter: torch.Tensor) -> bool:
    """Has it no memory of its own?"""
    return parameter.untyped_storage().nbytes() < parameter.numel() * parameter.element_size()
