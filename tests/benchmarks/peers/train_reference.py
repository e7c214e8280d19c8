"""The reference project's loop, written afresh from its description.

Rows in the order of the file, two at a time, padded on the right to the longer one; the loss of the Hugging Face model
over all logits; AdamW at 1e-5. `bfloat16-pure` is its own precision: parameters, gradients and optimizer states in
bfloat16. `bfloat16` adds float32 master weights, which it did not have.
"""

from __future__ import annotations

import argparse

import torch
from transformers import AutoModelForCausalLM

from tests.benchmarks.peers.train_clock import MASKED, Clock, Row, endless_micro_batches, measure, read_rows
from tests.benchmarks.peers.train_optimizer import MasterAdamW


def train(arguments: argparse.Namespace, clock: Clock) -> None:
    """Until the clock has enough."""
    torch.set_num_threads(arguments.threads)
    dtype = torch.float32 if arguments.precision == "float32" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype)
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    optimizer = MasterAdamW(model, masters=arguments.precision != "bfloat16-pure")
    batches = endless_micro_batches(read_rows(arguments.rows), arguments.repeat)
    enough = False
    while not enough:
        loss_sum = 0.0
        for _ in range(arguments.accumulation):
            batch = padded(next(batches))
            labels = batch["labels"]
            clock.count(int(batch["attention_mask"].sum()), int((labels != MASKED).sum()), labels.numel())
            loss = model(**batch).loss / arguments.accumulation
            loss.backward()
            loss_sum += loss.item()
        optimizer.step()
        enough = clock.step(loss_sum)


def padded(rows: list[Row]) -> dict[str, torch.Tensor]:
    """int64 [B, S] each, S the longest of the rows."""
    shape = len(rows), max(len(ids) for ids, _ in rows)
    input_ids = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, MASKED, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    for number, (ids, wanted) in enumerate(rows):
        input_ids[number, : len(ids)] = torch.from_numpy(ids)
        labels[number, : len(ids)] = torch.from_numpy(wanted)
        attention_mask[number, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


if __name__ == "__main__":
    measure(train)
