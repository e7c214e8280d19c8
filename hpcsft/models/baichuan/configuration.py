"""Baichuan's config.json. No torch: tokenizers are chosen by it too."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, LlamaConfig

from hpcsft.model_shape import has_normalized_head, unsupported

DEFAULTS = {"vocab_size": 125_696, "max_position_embeddings": 4096, "pad_token_id": 0}
"""Where they are others than Llama's."""


class BaichuanConfig(LlamaConfig):
    """The published keys; what means nothing here is kept, so that a folder is written as it was read.

    `normalized_head` (is the output layer a NormHead?) is worked out where it is not given, see
    `model_shape.has_normalized_head`, and written from then on. ValueError for the 13B.
    """

    model_type = "baichuan"

    def __init__(self, **keys: Any):
        published = {**keys, "model_type": self.model_type}
        if found := unsupported(published):
            raise ValueError("; ".join(found))
        keys["normalized_head"] = has_normalized_head({**DEFAULTS, **published})
        super().__init__(**{**DEFAULTS, **keys})


AutoConfig.register("baichuan", BaichuanConfig, exist_ok=True)
