"""Cross-entropy of a linear output layer without its logits: a chunk of positions at a time, gradients at once.

Shapes: N positions, H hidden size, V vocabulary, C positions of a chunk. At no time is there more than one [C, V].
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import torch

LOGITS_PER_CHUNK = 2**24
"""C x V, in float32 64 MiB: beyond, chunks only need more memory; far below, matrix products lose speed."""
FEWEST_POSITIONS = 256
"""C for the largest vocabularies, where still smaller chunks would read the weight more often than they compute."""


def linear_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum over N of the cross-entropy of `hidden` [N, H] @ `weight` [V, H]^T against `targets` int64 [N].

    A float32 scalar, whatever the type of the two, with gradients to both. The same number as
    `cross_entropy((hidden @ weight.T).float(), targets, reduction="sum")`, without its [N, V] and their gradients:
    the gradient of the logits is known as soon as they are, so the forward pass makes the gradients of both arguments
    chunk by chunk (as Hsu et al. 2024, "Liger Kernel", section 3.2). On GPUs the kernels of Liger or
    cut-cross-entropy do it where they are installed.
    """
    if len(targets) and hidden.is_cuda and (kernel := installed_kernel(hidden.dtype)):
        return kernel(hidden, weight, targets)
    learns = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return _ChunkedCrossEntropy.apply(hidden, weight, targets, learns)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, learns: bool
    ) -> torch.Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if learns else hidden
        grad_weight = torch.zeros_like(weight) if learns and weight.requires_grad else None  # LoRA's head is frozen
        chunk = max(FEWEST_POSITIONS, LOGITS_PER_CHUNK // len(weight))
        for part, target, grad in zip(
            hidden.split(chunk), targets[:, None].split(chunk), grad_hidden.split(chunk), strict=True
        ):
            scores = (part @ weight.T).float()
            scores -= scores.amax(dim=1, keepdim=True)
            picked = scores.gather(1, target)
            total = scores.exp_().sum(dim=1, keepdim=True)
            loss += (total.log() - picked).sum()
            if learns:
                scores /= total
                scores.scatter_add_(1, target, scores.new_full((1, 1), -1.0).expand_as(target))
                scores = scores.to(hidden.dtype)
                torch.mm(scores, weight, out=grad)
                if grad_weight is not None:
                    grad_weight.addmm_(scores.T, part)
            del scores  # or it would still be there while the next are made
        ctx.gradients = grad_hidden, grad_weight
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.gradients
        del ctx.gradients  # so that the parameter can take the tensor over instead of copying it
        return grad_hidden.mul_(grad_loss), None if grad_weight is None else grad_weight.mul_(grad_loss), None, None


@functools.cache
def installed_kernel(dtype: torch.dtype) -> Any:
    """The fused GPU kernel to use for `dtype`, called like `linear_cross_entropy`; None without one.

    Liger's comes first: that of cut-cross-entropy adds up gradients in bfloat16, block by block and in any order.
    """
    if importlib.util.find_spec("liger_kernel"):
        return _liger
    if dtype == torch.bfloat16 and importlib.util.find_spec("cut_cross_entropy"):
        return _cut_cross_entropy
    return None


def _cut_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    from cut_cross_entropy import linear_cross_entropy as kernel

    return kernel(hidden, weight, targets, reduction="sum", filter_eps=None)  # None: no gradient is rounded to zero


def _liger(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss(reduction="sum")(weight, hidden, targets)
