"""The same training in plain PyTorch: rows padded to the longest of their micro batch, transformers' own loss, AdamW.

No DeepSpeed, no packing, one process.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import transformers

from hpcsft.data.batches import RowStore
from hpcsft.data.order import TrainingOrder
from hpcsft.data.shards import IGNORE_INDEX, read_manifest
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec


class Plain(NamedTuple):
    """What plain PyTorch finds."""

    losses: list[float]
    """Of each step: mean over its supervised tokens."""
    grad_norms: list[float]
    """Before clipping."""
    weights: dict[str, torch.Tensor]
    """After the last step."""
    changed: list[float]
    """Share of the weights that each step changed."""


def train_plainly(run: RunDir, num_steps: int | None = None) -> Plain:
    """Train as the spec of `run` says on the rows that it has prepared, from the first step on."""
    spec = ExperimentSpec.model_validate(read_json(run.spec))
    train = spec.train
    store = RowStore(run.data, read_manifest(run.manifest), "train")
    order = TrainingOrder(
        store.lengths,
        train.micro_batch_size,
        spec.data.max_length,
        spec.data.packing,
        train.global_batch_size // train.micro_batch_size,
        spec.seed,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(spec.model.path, dtype=getattr(torch, spec.model.dtype))
    if spec.model.lora:
        model = with_adapters(model, spec)
    optimizer = torch.optim.AdamW(model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay)
    total = order.steps_per_epoch * train.epochs
    found = Plain([], [], model.state_dict(), [])
    for step in range(num_steps or total):
        for group in optimizer.param_groups:
            group["lr"] = train.learning_rate * (1 + math.cos(math.pi * step / total)) / 2
        micro_batches = [rows for rows in order.step(step) if len(rows)]
        supervised = sum(map(store.supervised, micro_batches))
        optimizer.zero_grad()
        loss_sum = 0.0
        for rows in micro_batches:
            ids, labels, mask = padded(store, rows.tolist())
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
            targets = labels[:, 1:].flatten()
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), targets, ignore_index=IGNORE_INDEX, reduction="sum"
            )
            (loss / supervised).backward()
            loss_sum += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), train.max_grad_norm)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer.step()
        different = sum(int((old != new).sum()) for old, new in zip(before, model.parameters(), strict=True))
        found.changed.append(different / sum(map(torch.numel, before)))
        found.losses.append(loss_sum / supervised)
        found.grad_norms.append(norm.item())
    return found


def with_adapters(model: transformers.PreTrainedModel, spec: ExperimentSpec) -> torch.nn.Module:
    """`model` as plain peft adapts it; the beginning is drawn from the seed, as in training."""
    import peft

    lora = spec.model.lora
    assert lora
    torch.manual_seed(spec.seed)
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.target_modules, task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(model, config)


def padded(store: RowStore, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """input_ids, labels and attention mask of `rows`, int64 [rows, longest], padded on the right."""
    longest = max(store.lengths[rows])
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    labels, mask = torch.full_like(ids, IGNORE_INDEX), torch.zeros_like(ids)
    for number, row in enumerate(rows):
        own_ids, own_labels = store.row(row)
        ids[number, : len(own_ids)] = torch.tensor(own_ids)
        labels[number, : len(own_ids)] = torch.tensor(own_labels)
        mask[number, : len(own_ids)] = 1
    return ids, labels, mask
