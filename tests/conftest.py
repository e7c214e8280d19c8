"""Fixtures that several folders of tests share: real conversations, a tiny model, and a spec around them."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.fixture import slurm  # noqa: F401

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session", autouse=True)
def no_places_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The runs of whoever runs the tests are not looked at, and no folder of a test is remembered in that home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.delenv("HPCSFT_RUNS_DIR", raising=False)
        yield


@pytest.fixture(scope="session")
def conversations() -> list[list[str]]:
    """Real dialogs, English and Chinese, each of an even number of turns."""
    import yaml

    spec = importlib.util.find_spec("chatterbot_corpus")
    assert spec and spec.origin
    folder = Path(spec.origin).parent / "data"
    files = [folder / "english" / f"{name}.yml" for name in ("trivia", "science", "conversations", "greetings")]
    files += sorted((folder / "chinese").glob("*.yml"))
    found = []
    for file in files:
        for turns in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]:
            texts = [str(turn).strip() for turn in turns] if isinstance(turns, list) else []
            even = texts[: len(texts) // 2 * 2]
            if even and all(even):
                found.append(even)
    return found


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, conversations: list[list[str]]) -> Path:
    """A Llama of 2 layers with its own byte-level tokenizer, as a Hugging Face folder."""
    return build_tiny_model(tmp_path_factory.mktemp("model"), conversations)


def build_tiny_model(folder: Path, conversations: list[list[str]], **config: Any) -> Path:
    """Write a small randomly initialised Llama and a byte-level BPE trained on `conversations` to `folder`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator((text for turns in conversations for text in turns), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.add_special_tokens({"additional_special_tokens": special[2:]})
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    settings = {
        "vocab_size": len(fast),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": fast.bos_token_id,
        "eos_token_id": fast.eos_token_id,
        "tie_word_embeddings": True,
    }
    LlamaForCausalLM(LlamaConfig(**{**settings, **config})).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ultrachat_file(tmp_path_factory: pytest.TempPathFactory, conversations: list[list[str]]) -> Path:
    """120 real dialogs as UltraChat rows."""
    path = tmp_path_factory.mktemp("data") / "ultrachat.jsonl"
    rows = ({"id": str(number), "data": turns} for number, turns in enumerate(conversations[:120]))
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory: pytest.TempPathFactory, conversations: list[list[str]]) -> Path:
    """Six held-out questions with the corpus's replies, in AlpacaEval's format."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.json"
    unique = {turns[0]: turns[1] for turns in conversations[120:150]}
    rows = [
        {"instruction": question, "output": reply, "generator": "corpus", "dataset": "trivia"}
        for question, reply in list(unique.items())[:6]
    ]
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.fixture
def spec_values(tiny_model: Path, ultrachat_file: Path, prompts_file: Path, tmp_path: Path) -> dict[str, Any]:
    """A whole spec that runs in seconds, for each test afresh."""
    return make_spec_values(tiny_model, ultrachat_file, prompts_file, tmp_path / "runs")


def make_spec_values(model: Path, data: Path, prompts: Path, runs_dir: Path) -> dict[str, Any]:
    """A whole spec that runs in seconds: tiny model, real dialogs, local judge."""
    return {
        "name": "tiny",
        "runs_dir": str(runs_dir),
        "seed": 7,
        "model": {"path": str(model), "dtype": "float32", "gradient_checkpointing": False},
        "data": {"train": [str(data)], "validation": 0.1, "max_length": 64},
        "train": {
            "epochs": 2,
            "global_batch_size": 8,
            "micro_batch_size": 2,
            "learning_rate": 1e-3,
            "checkpoint": {"every_steps": 5},
        },
        "evaluate": {
            "prompts": str(prompts),
            "shards": 2,
            "generation": {"max_new_tokens": 8, "batch_size": 4},
            "checks": {"echo": 1, "empty": 1, "leftover": 1},
            "judge": {"kind": "local", "model": str(model)},
        },
        "cluster": {"kind": "local", "cpus_per_task": 1, "train": {"tasks_per_node": 2, "time": "00:10:00"}},
    }
