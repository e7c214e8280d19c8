"""Models and rows for the benchmarks of training: real dialogs, tokenized and masked once, by hpcsft's own stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.benchmarks import conversations
from tests.benchmarks.packing import padded_fill

NUM_COMPOSED = 400
DATA = {"long": "ultrachat_like", "short": "as_they_are"}
"""Data sets of conversations.py: composed ones of UltraChat's length, and the dialogs as they are."""


class Inputs(NamedTuple):
    """What all peers train on."""

    model: Path
    """Hugging Face folder with weights and tokenizer."""
    conversations: Path
    """UltraChat JSONL, which hpcsft's own runs read."""
    data: Path
    """The prepared rows as hpcsft keeps them: the folder with their manifest."""
    rows: Path
    """The same rows in the same order for all others; see `write_rows`."""
    facts: dict[str, float]
    """parameters, conversations, rows, mean_conversation and mean_row (tokens), supervised (share of the tokens),
    padding (share of the positions, in padded pairs)."""


def make_small_model(folder: Path) -> Path:
    """A random Llama of 8 layers, 256 wide, with a tokenizer of its own: a vocabulary of 32,000."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    conversations.make_llama_like(folder)
    sizes = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=conversations.VOCABULARY, max_position_embeddings=2048, pad_token_id=2, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_conversations(folder: Path) -> dict[str, Path]:
    """Both data sets as files in `folder`, by their names in DATA."""
    made = conversations.make_data(folder, num_composed=NUM_COMPOSED)
    return {name: made[source] for name, source in DATA.items()}


def run_values(model: Path, file: Path, max_length: int) -> dict[str, Any]:
    """A spec whose rows are the ones that all train on: every assistant turn supervised, none held out."""
    return {
        "name": f"{model.name}-{file.stem}".replace("_", "-"),
        "model": {"path": str(model.resolve()), "gradient_checkpointing": False},
        "data": {"train": [str(file)], "validation": 0, "max_length": max_length},
        "cluster": {"kind": "local", "preprocess": {"cpus_per_task": 2}},
    }


def make_inputs(model: Path, file: Path, runs_dir: Path, max_length: int) -> Inputs:
    """Run the stage `preprocess` on `file` and write its rows beside it."""
    from safetensors import safe_open

    from hpcsft.data.batches import RowStore
    from hpcsft.data.shards import read_manifest
    from tests.train.ranks import new_run

    run = new_run(run_values(model, file, max_length), runs_dir)
    store = RowStore(run.data, read_manifest(run.manifest), "train")
    rows = write_rows(runs_dir / f"{model.name}-{file.stem}.npz", [store.row(row) for row in range(len(store))])
    with file.open(encoding="utf-8") as lines:
        num_conversations = sum(1 for _ in lines)
    with safe_open(model / "model.safetensors", "np") as weights:
        names = list(weights.keys())
        sizes = [weights.get_slice(name).get_shape() for name in names]
    facts = {
        "parameters": sum(int(np.prod(size)) for size in sizes),
        "conversations": num_conversations,
        "rows": len(store),
        "mean_conversation": store.tokens() / num_conversations,
        "mean_row": store.tokens() / len(store),
        "supervised": store.supervised() / store.tokens(),
        "padding": 1 - padded_fill(store.lengths, 2),
    }
    return Inputs(model, file, run.data, rows, facts)


def write_rows(file: Path, rows: list[tuple[np.ndarray, np.ndarray]]) -> Path:
    """Write `input_ids` and `labels` of all rows end to end and the `lengths` of the rows, int32, as .npz."""
    ids, labels = (np.concatenate(column) for column in zip(*rows, strict=True))
    np.savez(file, input_ids=ids, labels=labels, lengths=np.array([len(row) for row, _ in rows], dtype=np.int32))
    return file
