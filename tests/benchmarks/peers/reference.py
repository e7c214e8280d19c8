"""The reference project's loop, written afresh from its description; with --splitter its splitter runs before it.

One tokenizer call per piece (bos + "User: " + text + eos; "\\nAssistant: "; text + eos; "\\nUser: " + text + eos; ...),
Python lists, rows cut at the maximum length, batches in file order padded to their longest, torch tensors. The
splitter tokenizes every text a first time to learn its length.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from tests.benchmarks.peers.timing import Peer, measure

BATCH = 2
MASKED = -100


def prepare(arguments: argparse.Namespace) -> Peer:
    """One process: its tokenizer is called with single texts, which Rust does not spread over threads."""
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    bos, eos = tokenizer.bos_token or "", tokenizer.eos_token

    def row(texts: list[str]) -> dict[str, list[int]]:
        input_ids: list[int] = []
        labels: list[int] = []
        for number in range(0, len(texts), 2):
            question = ("\n" if number else bos) + "User: " + texts[number] + eos
            for text, learnt in ((question, False), ("\nAssistant: ", False), (texts[number + 1] + eos, True)):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                input_ids += ids
                labels += ids if learnt else [MASKED] * len(ids)
        return {"input_ids": input_ids[: arguments.max_length], "labels": labels[: arguments.max_length]}

    def parts(texts: list[str]) -> list[list[str]]:
        if not arguments.splitter:
            return [texts]
        made: list[list[str]] = []
        part: list[str] = []
        length = 0
        for number in range(0, len(texts), 2):
            pair = texts[number : number + 2]
            tokens = sum(len(tokenizer(text)["input_ids"]) + 6 for text in pair)
            if length + tokens > arguments.max_length:
                made += [part] if part else []
                part, length = pair, tokens
            else:
                part, length = part + pair, length + tokens
                made += [part] if number + 2 == len(texts) else []
        return made

    def padded(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        input_ids, labels, mask = [], [], []
        for row in rows:
            length = len(row["input_ids"])
            input_ids.append(row["input_ids"] + [tokenizer.eos_token_id] * (width - length))
            labels.append(row["labels"] + [MASKED] * (width - length))
            mask.append([1] * length + [0] * (width - length))
        columns = {"input_ids": input_ids, "labels": labels, "attention_mask": mask}
        return {name: torch.tensor(values, dtype=torch.long) for name, values in columns.items()}

    def batches(file: Path) -> Iterator[dict[str, torch.Tensor]]:
        rows = []
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                for part in parts(json.loads(line)["data"]):
                    rows.append(row(part))
                    if len(rows) == BATCH:
                        yield padded(rows)
                        rows = []
        if rows:
            yield padded(rows)

    def work(file: Path) -> list[dict[str, torch.Tensor]]:
        return list(batches(file))

    def count(made: list[dict[str, Any]]) -> tuple[int, int]:
        masks = [batch["attention_mask"] for batch in made]
        return sum(int(mask.sum()) for mask in masks), sum(len(mask) for mask in masks)

    return Peer(work, count)


if __name__ == "__main__":
    measure(prepare)
