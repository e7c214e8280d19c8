"""Guards that the tokenizer of a trained model gives the same tokens and texts to whoever has no hpcsft."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.models.tokenizer_export import save_tokenizer
from tests.models import spm
from tests.models.spm import BY_HAND, CODE, LAYOUTS, utterances

TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] + eos_token }}{% endfor %}"
EXPORTS = [*((name, "llama" if name == "baichuan2" else "native") for name in LAYOUTS), ("baichuan2", "native")]
"""(what was published, how it is exported)."""
TEXTS = [*utterances()[::20], *BY_HAND]

PLAIN = """
import json, sys, warnings
warnings.simplefilter("error")
sys.modules["torch"] = None  # it starts quicker, and tokenizers need none
sys.modules["hpcsft"] = None
from transformers import AutoTokenizer
folders, texts = json.load(sys.stdin)
for folder in folders:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    ids = tokenizer(texts)["input_ids"]
    names = [getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "unk", "pad")]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    print(json.dumps([ids, tokenizer.batch_decode(ids, skip_special_tokens=True), names, len(tokenizer), chat]))
"""


def export(name: str, layout: str, folder: Path) -> tuple[Any, Path, Path]:
    """(tokenizer, the folder that it came from, the folder that it was exported to)."""
    source, target = LAYOUTS[name](folder / "source"), folder / "target"
    target.mkdir()
    tokenizer = load_tokenizer(str(source))
    save_tokenizer(tokenizer, str(source), target, TEMPLATE, layout)
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    return tokenizer, source, target


def told_by(tokenizer: Any) -> list[Any]:
    """What PLAIN tells of a tokenizer."""
    ids = tokenizer(TEXTS)["input_ids"]
    names = [getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "unk", "pad")]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], chat_template=TEMPLATE, tokenize=False)
    return [ids, tokenizer.batch_decode(ids, skip_special_tokens=True), names, len(tokenizer), chat]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[tuple[str, str], tuple[Any, Path, Path]]:
    return {which: export(*which, tmp_path_factory.mktemp("export")) for which in EXPORTS}


def test_without_hpcsft_tokens_and_texts_are_the_same(exported):
    folders = [str(target) for _, _, target in exported.values()]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN],
        input=json.dumps([folders, TEXTS]),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"},
    )
    for which, line in zip(exported, done.stdout.splitlines(), strict=True):
        assert json.loads(line) == told_by(exported[which][0]), which
    assert "okeniz" not in done.stderr  # of config.json something may be said
    assert not any(list(target.glob("was-run")) for _, _, target in exported.values())


@pytest.mark.parametrize("which", EXPORTS, ids="-".join)
def test_it_loads_again_as_it_was(exported, which):
    tokenizer, _, target = exported[which]
    again = load_tokenizer(str(target))
    assert told_by(again) == told_by(tokenizer)
    assert again.all_special_tokens == tokenizer.all_special_tokens
    assert again.model_max_length == tokenizer.model_max_length


@pytest.mark.parametrize("which", EXPORTS, ids="-".join)
def test_the_sentencepiece_file_comes_along(exported, which):
    _, source, target = exported[which]
    files = [folder / "tokenizer.model" for folder in (source, target)]
    assert files[0].exists() == files[1].exists()
    if files[0].exists():
        assert files[0].read_bytes() == files[1].read_bytes()


def test_release_4_of_transformers_can_read_the_settings(exported):
    """It knows neither the classes of release 5 nor a list of extra_special_tokens."""
    for _, _, target in exported.values():
        values = json.loads((target / "tokenizer_config.json").read_text())
        assert values["tokenizer_class"] == "PreTrainedTokenizerFast" and "extra_special_tokens" not in values
        assert "token_type_ids" not in values["model_input_names"]


def test_baichuan_keeps_the_settings_and_the_code_that_it_was_published_with(exported):
    native, llama = exported["baichuan2", "native"][2], exported["baichuan2", "llama"][2]
    values = json.loads((native / "tokenizer_config.json").read_text())
    assert values["auto_map"] == spm.BAICHUAN["auto_map"] and values["sp_model_kwargs"] == {}
    assert (values["add_bos_token"], values["add_eos_token"]) == (False, False)
    assert sorted(file.name for file in native.glob("*.py")) == [
        f"{name}_baichuan.py" for name in ("configuration", "modeling", "tokenization")
    ]
    assert {file.read_text() for file in native.glob("*.py")} == {CODE}
    assert "auto_map" not in json.loads((llama / "tokenizer_config.json").read_text()) and not list(llama.glob("*.py"))


def test_without_a_chat_template_there_is_none(tmp_path):
    source = spm.baichuan2(tmp_path / "source", chat_template=TEMPLATE)
    (tmp_path / "target").mkdir()
    save_tokenizer(load_tokenizer(str(source)), str(source), tmp_path / "target", None, "native")
    assert load_tokenizer(str(tmp_path / "target")).chat_template is None


def test_tokens_that_were_added_later_come_along(tmp_path):
    source = spm.huggyllama(tmp_path / "source", pad_token="[PAD]")
    (source / "added_tokens.json").write_text(json.dumps({"[PAD]": 3000}))
    (tmp_path / "target").mkdir()
    save_tokenizer(load_tokenizer(str(source)), str(source), tmp_path / "target", None, "native")
    again = load_tokenizer(str(tmp_path / "target"))
    assert (again.pad_token_id, len(again)) == (3000, 3001)
