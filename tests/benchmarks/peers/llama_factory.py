"""LLaMA-Factory's supervised preprocessing: its get_dataset on a file of `messages`, loss on every assistant turn.

Its template `default` is the nearest to user_assistant: "Human: question<eos>\\nAssistant:" and "answer<eos>\\n".

A Python for it without CUDA: pip install torch; pip install --no-deps llamafactory==0.9.5; pip install torch
accelerate==1.11.0 datasets==4.0.0 peft==0.18.1 transformers==5.6.0 trl==0.24.0 "tyro<0.9" einops fire hf-transfer
matplotlib omegaconf scipy sentencepiece tiktoken
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

from tests.benchmarks.peers.timing import Peer, measure


def prepare(arguments: argparse.Namespace) -> Peer:
    """Arguments through its own parser; no cache, nothing logged."""
    if not importlib.util.find_spec("torchaudio"):  # imported for sound only; has no wheel for torch without CUDA
        sys.modules["torchaudio"] = ModuleType("torchaudio")
        sys.modules["torchaudio"].__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)

    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    disable_progress_bar()
    info = {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    }
    values = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(arguments.tokenizer),
        "template": "default",
        "dataset": "benchmark",
        "dataset_dir": str(arguments.folder),
        "cutoff_len": arguments.max_length,
        "packing": arguments.packing,
        "preprocessing_num_workers": arguments.num_proc if arguments.num_proc > 1 else None,
        "overwrite_cache": True,
        "output_dir": str(arguments.folder / "trainer"),
        "report_to": "none",
        "use_cpu": True,
    }
    model, data, training, _, _ = get_train_args(values)
    training.log_level, training.log_on_each_node = "error", False
    module = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data)

    def work(file: Path) -> Dataset:
        named = {"benchmark": {"file_name": str(file.resolve()), **info}}
        (arguments.folder / "dataset_info.json").write_text(json.dumps(named))
        return get_dataset(template, model, data, training, stage="sft", **module)["train_dataset"]

    def count(dataset: Dataset) -> tuple[int, int]:
        return sum(map(len, dataset.with_format("numpy")["input_ids"])), len(dataset)

    return Peer(work, count)


if __name__ == "__main__":
    measure(prepare)
