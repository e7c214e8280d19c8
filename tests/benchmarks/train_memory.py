"""Estimated against measured memory of activations and loss: python -m tests.benchmarks.train_memory

Forward and backward of real models; every tensor that lives is counted, by its storage, whenever an operation makes
one. That is what a GPU's allocator is asked for, without its rounding. Large models run with tensors that have
shapes and no content (torch's FakeTensorMode), in bytes as if they had.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import weakref
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from hpcsft.estimate.activations import activations
from hpcsft.model_shape import ModelShape
from hpcsft.models.heads import install_loss_head
from hpcsft.models.lora import add_adapters
from hpcsft.spec.model import LoraSpec

MODELS = {
    "small": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "num_attention_heads": 8},
    "SmolLM2-135M": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "Llama-7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "Baichuan2-7B": {
        "vocab_size": 125696,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "Llama-3-8B": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
FAKE_ABOVE = 200_000_000
"""Parameters above which no content is computed."""


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages that operations made and that still live, and the most of them at once."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        there = [tensor for weight in model.parameters() for tensor in (weight, weight.grad) if tensor is not None]
        self._seen = {tensor.untyped_storage()._cdata for tensor in there}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._seen:
            self._seen.add(key)
            size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


class Measured(NamedTuple):
    """Bytes beside parameters and gradients."""

    kept: int
    """When the forward pass has ended, without the loss."""
    peak: int
    """The most at once, the loss included."""


def measure(
    config: LlamaConfig, dtype: torch.dtype, checkpointing: bool, positions: int, lora: LoraSpec | None = None
) -> Measured:
    """Forward and backward of one micro batch, every position of which carries loss."""
    with contextlib.ExitStack() as stack:
        if shape_of(config).num_parameters > FAKE_ABOVE:
            stack.enter_context(FakeTensorMode())
        model = LlamaForCausalLM._from_config(config, dtype=dtype).train()
        if lora:
            add_adapters(model, lora)
        install_loss_head(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):
            parameter.grad = torch.zeros_like(parameter)  # there already, so that none is counted
        every = torch.arange(positions)
        ids = torch.zeros(1, positions, dtype=torch.int64)
        live = stack.enter_context(LiveBytes(model))
        with model.get_output_embeddings().scoring(every, ids[0]):
            kept: list[int] = []
            model.model.norm.register_forward_pre_hook(lambda *_: kept.append(live.now), prepend=True)
            model(input_ids=ids, position_ids=every[None], use_cache=False).logits.backward()
        return Measured(kept[0], live.peak)


def shape_of(config: LlamaConfig) -> ModelShape:
    """The shape, which is known for every Llama."""
    shape = ModelShape.from_config(config.to_dict())
    assert shape
    return shape


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--positions", type=int, default=2048)
    arguments = parser.parse_args(argv)
    print(f"{arguments.positions} positions; GB = 10**9 bytes; measured (estimated)")
    for name in arguments.models:
        config = LlamaConfig(**MODELS[name])
        for dtype in (torch.float32, torch.bfloat16):
            for checkpointing in (False, True):
                found = measure(config, dtype, checkpointing, arguments.positions)
                told = activations(shape_of(config), arguments.positions, dtype.itemsize, checkpointing)
                off = f"{100 * (told.peak / found.peak - 1):+.0f}%"
                sizes = f"kept {found.kept / 1e9:6.2f} ({told.kept / 1e9:6.2f})  peak {found.peak / 1e9:6.2f} "
                setting = f"{str(dtype).removeprefix('torch.'):8} checkpointing {'on' if checkpointing else 'off':3}"
                print(f"{name:13} {setting}  {sizes}({told.peak / 1e9:6.2f})  {off}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
