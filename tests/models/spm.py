"""Small real sentencepiece models, trained in a moment, and tokenizers in folders as they were published."""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import sentencepiece
import yaml
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from hpcsft.model_folder.sentencepiece import read_sentencepiece
from hpcsft.models.sentencepiece_file import build

Kind = Literal["llama", "baichuan", "unigram"]

KINDS: tuple[Kind, ...] = ("llama", "baichuan", "unigram")

OF_LLAMA: dict[str, Any] = {
    **{"model_type": "bpe", "vocab_size": 3000, "character_coverage": 0.995, "byte_fallback": True},
    **{"split_digits": True, "allow_whitespace_only_pieces": True, "normalization_rule_name": "identity"},
    **{"remove_extra_whitespaces": False, "add_dummy_prefix": True},
}
SETTINGS: dict[Kind, dict[str, Any]] = {
    "llama": OF_LLAMA,
    "baichuan": {
        **OF_LLAMA,
        "add_dummy_prefix": False,
        "user_defined_symbols": [f"<reserved_{number}>" for number in range(100)],
    },
    "unigram": {"model_type": "unigram", "vocab_size": 3000, "user_defined_symbols": ["<sep>"]},
}
"""As those models were trained; unigram with sentencepiece's own defaults (nmt_nfkc, no bytes)."""

BY_HAND = (
    *("", " ", "  ", "\n", "\t", "a", " a", "a ", "   a   ", "a  b   c", "\n\na\n", "\ta\tb", " \n x \n "),
    *("12345 678", "3.14-2e10", "x = [1, 2]", "    return 1\n", "aaaaaaa", "-" * 33, "=" * 40, " " * 35 + "x"),
    *("你好,世界", "你好 world 你", "龘靐", "naïve café", "😀", "a😀b 👩‍👩‍👧", "\u3000x\u00a0y", "▁a ▁", "e\u0301"),
    *("<s>", "</s>", "a</s>b", "<unk>", "<0x0A>", "<0x41><0x42>", "&lt;/s>"),
)
"""Texts at which tokenizers differ."""


@functools.cache
def utterances() -> tuple[str, ...]:
    """Real texts, English and Chinese, each once."""
    spec = importlib.util.find_spec("chatterbot_corpus")
    assert spec and spec.origin
    folder, found = Path(spec.origin).parent / "data", []
    for language in ("english", "chinese"):
        for file in sorted((folder / language).glob("*.yml")):
            document = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
            for turns in document["conversations"]:
                found += map(str, turns if isinstance(turns, list) else [turns])
    return tuple(dict.fromkeys(found))


def made_up(number: int) -> Iterator[str]:
    """Texts of words, spaces and characters in odd company, the same ones each time."""
    draw = random.Random(5)
    words = [word for text in utterances() for word in text.split()]
    signs = "abcaaa   \n\t..==--1234567的是你好é😀\u3000<>_▁"
    for _ in range(number):
        parts = (
            draw.choice([draw.choice(signs), draw.choice(words), draw.choice(signs) * draw.randint(1, 20), " "])
            for _ in range(draw.randint(0, 12))
        )
        yield "".join(parts)


@functools.cache
def trained(kind: Kind, **settings: Any) -> bytes:
    """A sentencepiece model of real texts, as the content of its file."""
    lines = [line for text in utterances() for line in text.splitlines() if line]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        **{"sentence_iterator": iter(lines), "model_writer": written, "num_threads": 1, "minloglevel": 2},
        **{**SETTINGS[kind], **settings},
    )
    return written.getvalue()


def proto_of(content: bytes) -> Any:
    """A model's file as something to change; `SerializeToString()` makes it a file again."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(content)
    return proto


def processor(content: bytes) -> sentencepiece.SentencePieceProcessor:
    """sentencepiece itself."""
    return sentencepiece.SentencePieceProcessor(model_proto=content)


def write(folder: Path, **files: Any) -> Path:
    """Write `files` to the new `folder`: bytes to tokenizer.model, all else as JSON, __ standing for a dot."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        file = folder / name.replace("__", ".")
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


ADDED = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}


def added(text: str) -> dict[str, Any]:
    """A token as tokenizer_config.json wrote it in early 2023."""
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": text, **flags}


DECAPODA = {"bos_token": "", "eos_token": "", "model_max_length": 1e30, "unk_token": ""}
DECAPODA |= {"tokenizer_class": "LLaMATokenizer"}
HUGGYLLAMA = {
    **{"add_bos_token": True, "add_eos_token": False, "model_max_length": 2048, "pad_token": None},
    **{"bos_token": added("<s>"), "eos_token": added("</s>"), "unk_token": added("<unk>")},
    **{"clean_up_tokenization_spaces": False, "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer"},
}
BAICHUAN = {
    **{"add_bos_token": False, "add_eos_token": False, "use_fast": False, "model_max_length": 4096},
    **{"bos_token": added("<s>"), "eos_token": added("</s>"), "unk_token": added("<unk>")},
    **{"pad_token": added("<unk>"), "clean_up_tokenization_spaces": False, "sp_model_kwargs": {}},
    **{"auto_map": {"AutoTokenizer": ["tokenization_baichuan.BaichuanTokenizer", None]}},
    **{"tokenizer_class": "BaichuanTokenizer"},
}
CODE = "import pathlib; pathlib.Path(__file__).with_name('was-run').touch()\n"


def decapoda(folder: Path) -> Path:
    """llama-7b-hf of early 2023, whose config.json has wrong ids."""
    config = {"model_type": "llama", "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1}
    files = {"tokenizer__model": trained("llama"), "tokenizer_config__json": DECAPODA, "config__json": config}
    return write(folder, **files, special_tokens_map__json={})


def huggyllama(folder: Path, **settings: Any) -> Path:
    """llama-7b as it was published a little later, `settings` changed."""
    config = {"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2}
    settings = {**HUGGYLLAMA, **settings}
    return write(folder, tokenizer__model=trained("llama"), tokenizer_config__json=settings, config__json=config)


def baichuan2(folder: Path, **settings: Any) -> Path:
    """Baichuan2-7B-Base, with code that tells if it was run."""
    config = {"model_type": "baichuan", "auto_map": {"AutoConfig": "configuration_baichuan.BaichuanConfig"}}
    code = {f"{name}_baichuan__py": CODE for name in ("tokenization", "configuration", "modeling")}
    settings = {**BAICHUAN, **settings}
    return write(
        folder, tokenizer__model=trained("baichuan"), tokenizer_config__json=settings, config__json=config, **code
    )


def byte_level(special: Sequence[str]) -> Tokenizer:
    """A byte-level BPE of the same texts, with the special tokens at the end of its vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(utterances()[:1500], trainer)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA_3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def llama2(folder: Path) -> Path:
    """Llama-2-7b: the sentencepiece file and the tokenizer.json that was made of it."""
    huggyllama(folder, legacy=False, tokenizer_class="LlamaTokenizer")
    backend = build(read_sentencepiece(folder / "tokenizer.model"), begin_anew=True)
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    backend.save(str(folder / "tokenizer.json"))
    return folder


def mistral(folder: Path) -> Path:
    """Mistral-7B: as Llama-2, in later words."""
    llama2(folder)
    later = {str(number): {**ADDED, "content": text} for number, text in enumerate(("<unk>", "<s>", "</s>"))}
    settings = {"added_tokens_decoder": later, "additional_special_tokens": [], "tokenizer_class": "LlamaTokenizer"}
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None, "legacy": False}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **names}))
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral"}))
    return folder


def llama3(folder: Path) -> Path:
    """Llama-3-8B."""
    backend = byte_level(LLAMA_3)
    settings = {"bos_token": LLAMA_3[0], "eos_token": LLAMA_3[1], "tokenizer_class": "PreTrainedTokenizerFast"}
    write(folder, tokenizer_config__json=settings, config__json={"model_type": "llama"})
    bos = (LLAMA_3[0], backend.token_to_id(LLAMA_3[0]))
    backend.post_processor = processors.TemplateProcessing(f"{bos[0]} $A", special_tokens=[bos])
    backend.save(str(folder / "tokenizer.json"))
    return folder


def qwen2(folder: Path, json_file: bool = True) -> Path:
    """Qwen2-7B-Instruct; without `json_file` only vocab.json and merges.txt, of which transformers makes the same."""
    backend = byte_level(CHATML)
    later = {str(backend.token_to_id(text)): {**ADDED, "content": text} for text in CHATML}
    settings = {"bos_token": None, "eos_token": CHATML[2], "pad_token": CHATML[0], "unk_token": None}
    settings |= {"added_tokens_decoder": later, "additional_special_tokens": list(CHATML[1:])}
    settings |= {"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": False}
    write(folder, tokenizer_config__json=settings, config__json={"model_type": "qwen2"})
    backend.model.save(str(folder))
    if json_file:
        backend.save(str(folder / "tokenizer.json"))
    return folder


LAYOUTS = {
    **{layout.__name__: layout for layout in (decapoda, huggyllama, llama2, mistral, baichuan2, llama3, qwen2)},
    "qwen2-files": functools.partial(qwen2, json_file=False),
}
"""Folders as they were published, by whom."""
