"""The shape of a decoder-only transformer, from its config.json alone. Pure.

Only families whose layers are Llama's up to biases and norms: RMSNorm, rotary positions, grouped-query attention and a
gated MLP of three matrices. Of any other family nothing is guessed: what is unknown is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hpcsft.records import Record


class _Family(NamedTuple):
    """What the code of a family fixes and its config.json does not tell."""

    qkv_bias: bool | None = None
    """None: as `attention_bias` says, for the output projection too."""
    norms_per_layer: int = 2
    head_norms: bool = False
    """A norm over head_dim for queries and one for keys."""
    mlp_bias: bool = False
    """Does the code heed `mlp_bias`?"""
    tied: bool = False
    """Are embedding and head one matrix where config.json does not say?"""


FAMILIES = {
    "baichuan": _Family(qkv_bias=False),
    "gemma": _Family(tied=True),
    "gemma2": _Family(norms_per_layer=4, tied=True),
    "granite": _Family(mlp_bias=True),
    "llama": _Family(mlp_bias=True),
    "mistral": _Family(qkv_bias=False),
    "phi3": _Family(qkv_bias=False),
    "qwen2": _Family(qkv_bias=True),
    "qwen3": _Family(head_norms=True),
    "smollm3": _Family(mlp_bias=True, tied=True),
}
"""By `model_type`."""

BAICHUAN2_VOCAB = 125_696
"""Of Baichuan2; its predecessor, whose head is a plain matrix, has 64,000."""
BAICHUAN_13B_WIDTH = 5120
LLAMA_LAYOUT = ("baichuan", "llama")
"""Model types that can be written as a plain Llama."""


class ModelShape(Record):
    """Sizes of a model with layers like Llama's."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    tied: bool
    """Embedding and head are one matrix."""
    other_layer_parameters: int
    """Biases and norms of one layer."""
    chunked_loss: bool = True
    """False where the model works on its logits after the head, so that there are all of them."""
    normalized_head: bool = False
    """Does the head scale every row of its matrix to length 1, as Baichuan2's?"""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape | None:
        """The shape that a config.json tells; None for a family that is not in FAMILIES, or if a size is missing."""
        model_type = config.get("model_type")
        family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
        hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
        if family is None or not hidden or not heads:
            return None
        kv_heads = _size(config, "num_key_value_heads", heads)
        head_dim = _size(config, "head_dim", hidden // heads)
        vocab, layers = _size(config, "vocab_size"), _size(config, "num_hidden_layers")
        intermediate = _size(config, "intermediate_size")
        if not (kv_heads and head_dim and vocab and layers and intermediate):
            return None
        bias = bool(config.get("attention_bias", False))
        qkv_bias = bias if family.qkv_bias is None else family.qkv_bias
        other = family.norms_per_layer * hidden + 2 * head_dim * family.head_norms
        other += (heads + 2 * kv_heads) * head_dim * qkv_bias
        other += hidden * (bias and family.qkv_bias is None)
        other += (2 * intermediate + hidden) * (family.mlp_bias and bool(config.get("mlp_bias", False)))
        tied = config.get("tie_word_embeddings")
        return cls(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            tied=family.tied if tied is None else bool(tied),
            other_layer_parameters=other,
            chunked_loss=model_type not in ("gemma2", "granite"),
            normalized_head=has_normalized_head(config),
        )

    @property
    def query_size(self) -> int:
        """Elements of a token's queries, of all heads: hidden_size in most models."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Elements of a token's keys, of all heads; as many are its values."""
        return self.num_kv_heads * self.head_dim

    @property
    def layer_matmul_parameters(self) -> int:
        """Elements of the seven matrices of a layer."""
        attention = 2 * self.query_size + 2 * self.kv_size
        return self.hidden_size * (attention + 3 * self.intermediate_size)

    @property
    def head_parameters(self) -> int:
        """Elements of the matrix that makes logits."""
        return self.vocab_size * self.hidden_size

    @property
    def num_parameters(self) -> int:
        """All parameters; a matrix that is embedding and head counts once."""
        layers = self.num_layers * (self.layer_matmul_parameters + self.other_layer_parameters)
        return layers + self.hidden_size + self.head_parameters * (1 if self.tied else 2)


def has_normalized_head(config: Mapping[str, Any]) -> bool:
    """Does the model scale every row of its head to length 1, as Baichuan2 does?

    `normalized_head` says so where hpcsft has written the config. Published ones are known by `z_loss_weight`, which
    Baichuan's config class has had since Baichuan2, or by the vocabulary.
    """
    if config.get("model_type") != "baichuan":
        return False
    stated = config.get("normalized_head")
    if stated is not None:
        return bool(stated)
    return config.get("z_loss_weight") is not None or config.get("vocab_size") == BAICHUAN2_VOCAB


def unsupported(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with a model whose type is known and which still cannot be used, and a hint; else None.

    `config` is a whole config.json. Baichuan's 13B models have the type and the class of the 7B, and not its positions:
    they are known by their width, and by a `model_max_length` where the 7B has `max_position_embeddings` as well.
    """
    if config.get("model_type") != "baichuan":
        return None
    unlimited = config.get("model_max_length") is not None and config.get("max_position_embeddings") is None
    if config.get("hidden_size") != BAICHUAN_13B_WIDTH and not unlimited:
        return None
    return (
        "Baichuan 13B is not supported: its positions are ALiBi's, not rotary",
        "take a 7B: Baichuan2-7B-Base, Baichuan2-7B-Chat or Baichuan-7B",
    )


def _size(config: Mapping[str, Any], name: str, default: int | None = None) -> int | None:
    """A positive whole number of the config; None if it is of another kind."""
    value = config.get(name)
    if value is None:
        return default
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
