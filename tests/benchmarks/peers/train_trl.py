"""TRL's SFTTrainer on tokenized rows with labels: padded, without padding, or packed (bfd).

Gradient checkpointing, which is its default, is off unless asked for. `bfloat16` is its `bf16`, autocast.
"""

from __future__ import annotations

import argparse

from tests.benchmarks.peers.train_clock import Clock, measure, quiet, read_rows

quiet()

import torch  # noqa: E402
import transformers  # noqa: E402
from datasets import Dataset  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

from tests.benchmarks.peers.train_huggingface import common, load_model, timed  # noqa: E402

WAYS = {"padded": {}, "padding-free": {"padding_free": True, "max_length": None}, "packed": {"packing": True}}


def train(arguments: argparse.Namespace, clock: Clock) -> None:
    """Until the clock has enough."""
    torch.set_num_threads(arguments.threads)
    ids, labels = zip(*read_rows(arguments.rows), strict=True)
    rows = Dataset.from_dict({"input_ids": list(ids), "labels": list(labels)})
    settings = SFTConfig(**{**common(arguments), "max_length": arguments.max_length, **WAYS[arguments.way]})
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    model = load_model(arguments.model)
    timed(SFTTrainer, clock)(model, settings, train_dataset=rows, processing_class=tokenizer).train()


if __name__ == "__main__":
    measure(train, ("--way", {"choices": WAYS, "default": "padded"}))
