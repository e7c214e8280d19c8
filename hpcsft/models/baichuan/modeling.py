"""Baichuan as a thin model: Llama's layers, the fused projection of its folders, and Baichuan2's output layer.

Shapes: H hidden size, V vocabulary.
"""

from __future__ import annotations

from torch.nn import Linear
from transformers import AutoModel, AutoModelForCausalLM, LlamaForCausalLM, LlamaModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, WeightConverter

from hpcsft.models.baichuan.configuration import BaichuanConfig
from hpcsft.models.heads import NormHead


class BaichuanModel(LlamaModel):
    """All but the output layer."""

    config_class = BaichuanConfig


class BaichuanForCausalLM(LlamaForCausalLM):
    """Baichuan2 7B with its normalised output layer, and Baichuan 7B, whose own is plain."""

    config_class = BaichuanConfig

    def __init__(self, config: BaichuanConfig):
        super(LlamaForCausalLM, self).__init__(config)
        self.model = BaichuanModel(config)
        self.vocab_size = config.vocab_size
        if config.normalized_head:
            self.lm_head: Linear = NormHead(config.hidden_size, config.vocab_size)
        else:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


AutoModel.register(BaichuanConfig, BaichuanModel, exist_ok=True)
AutoModelForCausalLM.register(BaichuanConfig, BaichuanForCausalLM, exist_ok=True)
register_checkpoint_conversion_mapping(
    "baichuan",
    [
        WeightConverter(  # [3 H, H] in folders, three times [H, H] in memory
            "self_attn.W_pack.weight",
            [f"self_attn.{part}_proj.weight" for part in "qkv"],
            operations=[Chunk(dim=0)],
        )
    ],
    overwrite=True,
)
