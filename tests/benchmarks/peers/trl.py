"""TRL's SFTTrainer: load_dataset, then the preparation that its constructor does, with assistant_only_loss."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.timing import Peer, measure

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}"
    "{{ ('' if loop.first else '\\n') + 'User: ' + message['content'] + eos_token + '\\nAssistant: ' }}"
    "{% else %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{% endif %}"
    "{% endfor %}"
)
"""user_assistant, with the answers marked for TRL."""


def prepare(arguments: argparse.Namespace) -> Peer:
    """A trainer of a tiny model; making it on the small file is the warm-up too."""
    from datasets import Dataset, load_dataset
    from datasets.utils.logging import disable_progress_bar
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    tokenizer.chat_template = TEMPLATE
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
    config = SFTConfig(
        output_dir=str(arguments.folder / "trainer"),
        assistant_only_loss=True,
        max_length=arguments.max_length,
        packing=arguments.packing,
        dataset_num_proc=arguments.num_proc if arguments.num_proc > 1 else None,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    two = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = Dataset.from_list([{"messages": two}] * 4)
    trainer = SFTTrainer(model, config, train_dataset=rows, processing_class=tokenizer)

    def work(file: Path) -> Dataset:
        dataset: Any = load_dataset("json", data_files=str(file), split="train")
        return trainer._prepare_dataset(dataset, tokenizer, config, config.packing, None, "train")

    def count(dataset: Dataset) -> tuple[int, int]:
        return sum(map(len, dataset.with_format("numpy")["input_ids"])), len(dataset)

    return Peer(work, count)


if __name__ == "__main__":
    measure(prepare)
