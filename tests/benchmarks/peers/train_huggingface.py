"""transformers.Trainer on padded rows: DataCollatorForSeq2Seq, its own defaults but for learning rate and logging.

`bfloat16` is its `bf16`: float32 parameters under autocast.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.train_clock import LEARNING_RATE, MASKED, MICRO_BATCH, Clock, measure, quiet, read_rows

quiet()

import torch  # noqa: E402
import transformers  # noqa: E402

ENDLESS_STEPS = 1_000_000


def train(arguments: argparse.Namespace, clock: Clock) -> None:
    """Until the clock has enough."""
    torch.set_num_threads(arguments.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    rows = [{"input_ids": ids.tolist(), "labels": labels.tolist()} for ids, labels in read_rows(arguments.rows)]
    for row in rows:
        row["attention_mask"] = [1] * len(row["input_ids"])
    settings = transformers.TrainingArguments(train_sampling_strategy=arguments.sampling, **common(arguments))
    timed(transformers.Trainer, clock)(
        load_model(arguments.model),
        settings,
        train_dataset=rows,
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
    ).train()


def load_model(folder: Path) -> Any:
    """In float32: both trainers want autocast for bfloat16, or they would train without master weights."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def common(arguments: argparse.Namespace) -> dict[str, Any]:
    """What Trainer and TRL are told alike. Checkpointing of activations is TRL's default and must be refused."""
    return {
        "output_dir": str(arguments.folder / "trainer"),
        "per_device_train_batch_size": MICRO_BATCH,
        "gradient_accumulation_steps": arguments.accumulation,
        "gradient_checkpointing": arguments.gradient_checkpointing,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_steps": ENDLESS_STEPS,
        "bf16": arguments.precision == "bfloat16",
        "use_cpu": True,
        "seed": 42 + arguments.repeat,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def timed(trainer_class: Any, clock: Clock) -> Any:
    """A subclass that counts the tokens of each micro batch, tells the clock of each step and stops when it says so."""

    class Callback(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = clock.step()

    class Timed(trainer_class):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.add_callback(Callback())

        def training_step(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
            positions = inputs["input_ids"].numel()
            tokens = int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else positions
            clock.count(tokens, int((inputs["labels"] != MASKED).sum()), positions)
            loss = super().training_step(model, inputs, *args, **kwargs)
            clock.losses.append(loss.item())
            return loss

    return Timed


if __name__ == "__main__":
    measure(train, ("--sampling", {"choices": ("random", "group_by_length"), "default": "random"}))
