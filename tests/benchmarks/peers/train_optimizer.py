"""AdamW in plain PyTorch over float32 master weights, or over the parameters themselves."""

from __future__ import annotations

import torch

from tests.benchmarks.peers.train_clock import LEARNING_RATE


class MasterAdamW:
    """AdamW on a float32 copy of each parameter that is not float32 itself; `step` writes the parameters anew.

    With `masters` false it works on the parameters as they are, states in their own type.
    """

    def __init__(self, model: torch.nn.Module, masters: bool = True, fused: bool | None = None):
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.copies = masters and self.parameters[0].dtype != torch.float32
        self.masters = self.parameters
        if self.copies:
            self.masters = [parameter.detach().float().requires_grad_() for parameter in self.parameters]
        self.adamw = torch.optim.AdamW(self.masters, lr=LEARNING_RATE, weight_decay=0.0, fused=fused)

    def step(self, max_grad_norm: float | None = None) -> None:
        """One step from the gradients of the parameters, which are gone then."""
        if self.copies:
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                master.grad, parameter.grad = parameter.grad.float(), None
        if max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.masters, max_grad_norm)
        self.adamw.step()
        self.adamw.zero_grad()
        if self.copies:
            with torch.no_grad():
                for parameter, master in zip(self.parameters, self.masters, strict=True):
                    parameter.copy_(master)
