"""Guards that the folders people have, as they were published, give the right tokenizer and special tokens; and that
what lacks an eos token, or names one that does not exist, is refused.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from hpcsft.data.tokens import TextEncoder
from hpcsft.errors import InputError
from hpcsft.models.tokenizer import load_tokenizer
from tests.models import spm
from tests.models.spm import BY_HAND, CHATML, LAYOUTS, LLAMA_3, added, processor, trained, utterances

OF_LLAMA = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": None, "before": ["<s>"]}
OF_QWEN2 = {"bos": None, "eos": CHATML[2], "unk": None, "pad": CHATML[0], "before": []}
EXPECTED: dict[str, dict[str, Any]] = {
    **{name: OF_LLAMA for name in ("decapoda", "huggyllama", "llama2", "mistral")},
    "baichuan2": {**OF_LLAMA, "pad": "<unk>", "before": []},
    "llama3": {"bos": LLAMA_3[0], "eos": LLAMA_3[1], "unk": None, "pad": None, "before": [LLAMA_3[0]]},
    **{name: OF_QWEN2 for name in ("qwen2", "qwen2-files")},
}
"""Special tokens, and what the tokenizer puts before a text of its own accord."""
IDS = {"<unk>": 0, "<s>": 1, "</s>": 2}
"""Of all sentencepiece models here."""


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request, tmp_path_factory) -> tuple[str, Path]:
    return request.param, LAYOUTS[request.param](tmp_path_factory.mktemp("layout") / request.param)


def change(folder: Path, name: str, **values: Any) -> None:
    """Change settings in a JSON file; None removes one."""
    file = folder / f"{name}.json"
    settings = {**(json.loads(file.read_text()) if file.exists() else {}), **values}
    file.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


@pytest.fixture
def remarks(caplog) -> Iterator[list[Any]]:
    """What transformers warns of."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield caplog.records
    logger.removeHandler(caplog.handler)


def test_special_tokens_of_published_folders(layout, remarks):
    name, folder = layout
    tokenizer = load_tokenizer(str(folder))
    found = {key: getattr(tokenizer, f"{key}_token") for key in ("bos", "eos", "unk", "pad")}
    before = tokenizer.convert_ids_to_tokens(tokenizer("")["input_ids"])
    assert {**found, "before": before} == EXPECTED[name]
    assert tokenizer.num_special_tokens_to_add() == len(before)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in found.values() if token in IDS}
    assert ids.items() <= IDS.items()
    assert tokenizer.is_fast and not remarks
    assert not list(folder.glob("was-run"))


def test_tokens_of_published_folders(layout):
    name, folder = layout
    tokenizer = load_tokenizer(str(folder))
    texts = [*utterances()[:600], *BY_HAND]
    found = [encoding.ids for encoding in TextEncoder(tokenizer).encode(texts)]
    if (folder / "tokenizer.model").exists():
        expected = processor((folder / "tokenizer.model").read_bytes()).encode(texts)
    else:
        reference = spm.byte_level(LLAMA_3 if name == "llama3" else CHATML)
        reference.encode_special_tokens = True
        expected = [encoding.ids for encoding in reference.encode_batch(texts, add_special_tokens=False)]
    assert found == expected
    assert len(tokenizer) == max(tokenizer.get_vocab().values()) + 1  # nothing beyond the model's embedding


def test_chatml_tokens_of_qwen2_are_found(tmp_path):
    tokenizer = load_tokenizer(str(spm.qwen2(tmp_path / "m")))
    assert set(CHATML) <= tokenizer.get_added_vocab().keys()


def test_settings_win_over_the_sentencepiece_file(tmp_path):
    folder = spm.huggyllama(tmp_path / "m", add_bos_token=False, add_eos_token=True, eos_token=added("<s>"))
    tokenizer = load_tokenizer(str(folder))
    assert (tokenizer.eos_token_id, tokenizer("")["input_ids"]) == (1, [1])
    both = load_tokenizer(str(spm.huggyllama(tmp_path / "both", add_eos_token=True)))
    assert both("a")["input_ids"] == [1, *both("a", add_special_tokens=False)["input_ids"], 2]
    assert both("a", "b")["input_ids"].count(1) == 2


def test_special_tokens_map_names_what_the_settings_do_not(tmp_path):
    folder = spm.decapoda(tmp_path / "m")
    change(folder, "special_tokens_map", pad_token="<unk>", eos_token={"content": "<s>", "lstrip": False})
    tokenizer = load_tokenizer(str(folder))
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, 1)


def test_tokens_that_were_added_later_keep_their_ids(tmp_path):
    """As fine-tunes of Llama have them, whose embeddings were made longer."""
    folder, size = spm.huggyllama(tmp_path / "m", pad_token="[PAD]"), len(processor(trained("llama")))
    change(folder, "added_tokens", **{"[PAD]": size, "<|im_end|>": size + 2, "<|im_start|>": size + 1})
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "<|im_start|>", "<|im_end|>"]) == [size, size + 1, size + 2]
    assert tokenizer.pad_token_id == size
    change(folder, "added_tokens", **{"<|im_end|>": size + 7})
    with pytest.raises(InputError, match=rf"the token '<\|im_end\|>' cannot have the id {size + 7}"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize("layout", ["huggyllama", "llama2", "llama3"])
def test_a_pad_token_without_an_id_is_left_out(layout, tmp_path):
    """transformers would give it one, beyond the model's embedding."""
    folder = LAYOUTS[layout](tmp_path / "m")
    size = len(load_tokenizer(str(folder)))
    change(folder, "tokenizer_config", pad_token="[PAD]")
    tokenizer = load_tokenizer(str(folder))
    assert (tokenizer.pad_token, len(tokenizer)) == (None, size)


@pytest.mark.parametrize("layout", ["huggyllama", "llama2", "llama3"])
def test_an_eos_token_that_the_vocabulary_lacks(layout, tmp_path):
    folder = LAYOUTS[layout](tmp_path / "m")
    change(folder, "tokenizer_config", eos_token="<|eot|>")
    with pytest.raises(InputError, match=r"m: eos_token is '<\|eot\|>', which the vocabulary lacks") as caught:
        load_tokenizer(str(folder))
    assert "tokenizer_config.json; its special tokens are: <" in caught.value.hint


def test_a_tokenizer_without_eos(tmp_path):
    folder = spm.llama3(tmp_path / "json")
    change(folder, "tokenizer_config", eos_token=None)
    pieces = spm.write(tmp_path / "pieces", tokenizer__model=trained("llama", eos_id=-1))
    for place in (folder, pieces):
        with pytest.raises(InputError, match=rf"{place.name}: the tokenizer has no eos token") as caught:
            load_tokenizer(str(place))
        assert '"eos_token": "</s>"' in caught.value.hint


def test_eos_comes_from_the_file_beside_or_from_the_model_s_class(tmp_path):
    folder = spm.llama2(tmp_path / "pieces")
    change(folder, "tokenizer_config", eos_token="", bos_token=None)
    assert load_tokenizer(str(folder)).eos_token_id == 2
    gpt2 = spm.write(tmp_path / "gpt2", config__json={"model_type": "gpt2"}, tokenizer_config__json={})
    spm.byte_level(["<|endoftext|>"]).save(str(gpt2 / "tokenizer.json"))
    assert load_tokenizer(str(gpt2)).eos_token == "<|endoftext|>"


def test_tokenizer_json_counts_as_it_is_written(tmp_path):
    """transformers' class for Llama writes spaces by rules of its own."""
    folder = spm.llama2(tmp_path / "m")
    written = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(str(folder))
    for text in ("  two spaces", "a</s>b", " "):
        expected = written.encode(text, add_special_tokens=False).ids
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected


@pytest.mark.parametrize("form", ["text", "list", "file"])
def test_the_chat_template_comes_along(form, tmp_path):
    given = {"text": "{{ 1 }}", "list": [{"name": "default", "template": "{{ 1 }}"}], "file": "{{ 2 }}"}[form]
    folder = spm.huggyllama(tmp_path / "m", chat_template=given)
    if form == "file":
        (folder / "chat_template.jinja").write_text("{{ 1 }}")
    assert load_tokenizer(str(folder)).get_chat_template() == "{{ 1 }}"


@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read: Expecting"), ("[]", "not a JSON object")])
def test_damaged_settings(content, message, tmp_path):
    folder = spm.decapoda(tmp_path / "m")
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(InputError, match=f"tokenizer_config.json: {message}"):
        load_tokenizer(str(folder))


def test_sentencepiece_folders_load_without_torch(tmp_path):
    folder = spm.baichuan2(tmp_path / "m")
    code = (
        "import sys; from hpcsft.models.tokenizer import load_tokenizer, without_torch; without_torch();"
        f"print(load_tokenizer({str(folder)!r}).eos_token_id, sys.modules['torch'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["2", "None"]
