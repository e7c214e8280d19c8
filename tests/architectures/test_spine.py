"""Every architecture that hpcsft names, from the published folder to answers: the numbers are those of transformers alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from hpcsft.data.encode import encode_prefix
from hpcsft.data.formats import Turn
from hpcsft.data.templates import make_template
from hpcsft.data.tokens import TextEncoder
from hpcsft.evaluate.outputs import read_answers
from hpcsft.models.load import load_model
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.records import read_jsonl
from hpcsft.rundir import RunDir
from tests.architectures import folders
from tests.conftest import make_spec_values
from tests.prepared import new_run
from tests.train.plain import Plain, train_plainly

SPINE_S = 600
CASES: dict[str, dict[str, Any]] = {
    "llama-3": {"zero_stage": 3},
    "mistral": {"zero_stage": 3},
    "qwen2": {"zero_stage": 2},
    "qwen3": {"zero_stage": 3},
    "smollm2": {"zero_stage": 3},
}


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, ultrachat_file: Path, prompts_file: Path
) -> dict[str, RunDir]:
    """The finished run of every case."""
    base = tmp_path_factory.mktemp("architectures")
    prepared = {}
    for kind, case in CASES.items():
        folder = base / kind
        folder.mkdir()
        tokenizer = load_tokenizer(str(tiny_model))
        tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        folders.write(folders.make(kind, folder, len(tokenizer), tokens), tiny_model, folder)
        values = make_spec_values(folder, ultrachat_file, prompts_file, base / "runs")
        values |= {"name": kind}
        values["data"] |= {"sample": 40}
        values["train"] |= {"epochs": 1, "zero_stage": case["zero_stage"]}
        values["evaluate"] |= {"checkpoints": ["epoch-1"]}
        prepared[kind] = new_run(values)
    command = [sys.executable, "-m", "tests.architectures.spine", *(str(run.path) for run in prepared.values())]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SPINE_S)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return prepared


@pytest.fixture(scope="module")
def plain(runs: dict[str, RunDir]) -> dict[str, Plain]:
    """The same training in plain PyTorch."""
    return {kind: train_plainly(run) for kind, run in runs.items()}


@pytest.mark.parametrize("kind", CASES)
def test_it_learns_what_transformers_alone_would(kind: str, runs: dict[str, RunDir], plain: dict[str, Plain]) -> None:
    rows = list(read_jsonl(runs[kind].metrics))
    assert [row["loss"] for row in rows] == pytest.approx(plain[kind].losses, rel=1e-5)
    assert [row["grad_norm"] for row in rows] == pytest.approx(plain[kind].grad_norms, rel=1e-4)


@pytest.mark.parametrize("kind", CASES)
def test_the_export_is_that_model(kind: str, runs: dict[str, RunDir], plain: dict[str, Plain]) -> None:
    exported = AutoModelForCausalLM.from_pretrained(runs[kind].epoch_model(1), dtype=torch.float32).state_dict()
    for name, tensor in plain[kind].weights.items():
        assert torch.allclose(exported[name], tensor, atol=1e-5), name


@pytest.mark.parametrize("kind", CASES)
def test_answers_are_those_of_the_export_asked_one_by_one(kind: str, runs: dict[str, RunDir]) -> None:
    folder = str(runs[kind].epoch_model(1))
    model, tokenizer = load_model(folder, "float32"), load_tokenizer(folder)
    template, encoder = make_template("user_assistant", tokenizer), TextEncoder(tokenizer)
    greedy = GenerationConfig(max_new_tokens=8, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
    answers = read_answers(runs[kind], "epoch-1").values()
    assert len(answers) == 6
    for answer in answers:
        ids = torch.tensor([encode_prefix(template, encoder, [Turn("user", answer.instruction)])])
        with torch.no_grad():
            new = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=greedy)[0, ids.shape[1] :]
        assert answer.output == tokenizer.decode(new, skip_special_tokens=True).strip()
