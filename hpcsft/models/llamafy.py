"""Models with Llama's layers written as plain Llama, which vLLM, llama.cpp and transformers load without hpcsft.

Shapes: H hidden size, V vocabulary.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import LlamaConfig, PreTrainedConfig

from hpcsft.errors import InputError
from hpcsft.model_shape import LLAMA_LAYOUT
from hpcsft.models.heads import ROWS_AT_ONCE

HEAD = "lm_head.weight"


def llamafied(config: PreTrainedConfig, state: dict[str, torch.Tensor]) -> tuple[LlamaConfig, dict[str, torch.Tensor]]:
    """Config and weights of the LlamaForCausalLM that gives the same logits as the model with `config` and `state`.

    `state` has the names of `module.state_dict()` and is not changed; all tensors are its own but a head [V, H] whose
    norm is folded in. A Llama is returned as it is. InputError for a model that is none of LLAMA_LAYOUT.
    """
    if config.model_type not in LLAMA_LAYOUT:
        raise InputError(
            f'model.export "llama": a model of type {config.model_type} cannot be written as a Llama',
            f'types that can: {", ".join(LLAMA_LAYOUT)}; "native" writes any model as what it is',
        )
    if config.model_type == "llama":
        return config, state
    known = LlamaConfig().to_dict().keys() - {"model_type", "transformers_version"}
    keys = {name: value for name, value in config.to_dict().items() if name in known}
    keys.update(architectures=["LlamaForCausalLM"], dtype=state[HEAD].dtype)
    if config.normalized_head:
        keys["tie_word_embeddings"] = False
        state = {**state, HEAD: _normalized(state[HEAD])}
    return LlamaConfig(**keys), state


def _normalized(weight: torch.Tensor) -> torch.Tensor:
    """`weight` [V, H] with every row scaled to L2 norm 1, computed in float32, in its own type."""
    parts = weight.split(ROWS_AT_ONCE)
    result = torch.empty_like(weight)
    for part, rows in zip(parts, result.split(ROWS_AT_ONCE), strict=True):
        rows.copy_(functional.normalize(part.float()))
    return result
