"""Published configurations, and specs around them."""

from __future__ import annotations

from hpcsft.model_shape import ModelShape
from hpcsft.spec import ExperimentSpec, parse_spec

LLAMA_7B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
BAICHUAN2_7B = {
    **LLAMA_7B,
    "architectures": ["BaichuanForCausalLM"],
    "model_type": "baichuan",
    "vocab_size": 125_696,
}
LLAMA_7B_PARAMETERS = 6_738_415_616
BAICHUAN2_7B_PARAMETERS = 7_505_973_248


def shape_of(config: dict) -> ModelShape:
    """The shape of a model of a known kind."""
    shape = ModelShape.from_config(config)
    assert shape
    return shape


def spec_of(dtype: str = "bfloat16", zero_stage: int = 2, **sections) -> ExperimentSpec:
    """A spec whose files need not exist. Sections are merged over it."""
    values: dict = {
        "model": {"path": "m", "dtype": dtype},
        "data": {"train": ["d.jsonl"]},
        "train": {"zero_stage": zero_stage},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return parse_spec(values)
