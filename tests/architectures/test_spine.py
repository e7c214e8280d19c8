"""Every architecture that hpcsft names, from the published folder to answers: as transformers alone would have it."""

from __future__ import annotations

import json
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
    "llama-7b-hf": {"train": {"zero_stage": 3}},
    "llama-2": {"train": {"zero_stage": 2}},
    "llama-3": {"train": {"zero_stage": 3}},
    "mistral": {"train": {"zero_stage": 3}},
    "qwen2": {"train": {"zero_stage": 2}},
    "qwen3": {"train": {"zero_stage": 3}},
    "smollm2": {"train": {"zero_stage": 3}},
    "smollm2-adapter": {"train": {"zero_stage": 3}, "model": {"lora": {"rank": 4, "export": "adapter"}}},
    "baichuan": {"train": {"zero_stage": 2}},
    "baichuan2": {"train": {"zero_stage": 3}},
    "baichuan2-as-llama": {"train": {"zero_stage": 3}, "model": {"export": "llama"}},
}
"""Kind of folder -> what the spec says of it."""
NATIVE = ("baichuan", "baichuan2")
"""Exports that only hpcsft, or the code of their publisher, can load."""

ALONE = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
answers = {}
for folder, prompts in json.load(sys.stdin).items():
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for prompt in prompts:
        turns = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        new = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        answers.setdefault(folder, []).append(tokenizer.decode(new, skip_special_tokens=True).strip())
assert "hpcsft" not in sys.modules
print(json.dumps(answers))
"""
"""What somebody else does with the exports: prompts by folder on stdin, answers by folder on stdout."""


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, ultrachat_file: Path, prompts_file: Path
) -> dict[str, RunDir]:
    """The finished run of every case."""
    base = tmp_path_factory.mktemp("architectures")
    prepared = {}
    for kind, case in CASES.items():
        folder = folders.published(kind, base / kind, tiny_model)
        values = make_spec_values(folder, ultrachat_file, prompts_file, base / "runs") | {"name": kind}
        values["data"] |= {"sample": 40}
        values["train"] |= {"epochs": 1}
        values["evaluate"] |= {"checkpoints": ["epoch-1"]}
        for section, settings in case.items():
            values[section] |= settings
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


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind != "smollm2-adapter"])
@torch.no_grad()
def test_the_export_is_that_model(kind: str, runs: dict[str, RunDir], plain: dict[str, Plain]) -> None:
    exported = AutoModelForCausalLM.from_pretrained(runs[kind].epoch_model(1), dtype=torch.float32)
    expected = AutoModelForCausalLM.from_pretrained(runs[kind].path.parents[1] / kind, dtype=torch.float32)
    expected.load_state_dict(plain[kind].weights)
    ids = torch.arange(3, 43)[None]
    assert torch.allclose(exported(ids).logits, expected(ids).logits, atol=1e-4)


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


def test_exports_answer_so_without_hpcsft(runs: dict[str, RunDir], tmp_path: Path) -> None:
    """With the chat template and the end token in the folder, as anybody would ask."""
    answers = {
        run.epoch_model(1): read_answers(run, "epoch-1").values() for kind, run in runs.items() if kind not in NATIVE
    }
    prompts = {str(folder): [answer.instruction for answer in mine] for folder, mine in answers.items()}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE],
        cwd=tmp_path,
        input=json.dumps(prompts),
        capture_output=True,
        text=True,
        timeout=SPINE_S,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {
        str(folder): [answer.output for answer in mine] for folder, mine in answers.items()
    }
