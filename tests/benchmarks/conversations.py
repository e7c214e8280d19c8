"""Texts and tokenizers for the benchmarks of preprocessing, made of the PyPI package chatterbot-corpus (28 languages).

    python -m tests.benchmarks.conversations FOLDER [--megabytes 100] [--seed 1]

writes to FOLDER, as UltraChat JSONL:

as_they_are.jsonl     consecutive dialogs of one file joined to conversations of 3 to 7 rounds, each dialog once and
                      nothing added: about 2,000, short (180 tokens by SmolLM2's tokenizer).
ultrachat_like.jsonl  2,000 conversations of UltraChat's shape: 3 to 7 rounds, 1,450 tokens on average, long-tailed.
                      They are composed: every question is a real utterance, every answer is several real replies of
                      the same language in a drawn order, joined by spaces; nine of ten conversations are English. No
                      answer is there twice, so that nobody profits from caching whole texts. Words do come back more
                      often than in UltraChat, which makes the tokenizer by itself fast and all that is done around it
                      weigh more. With --megabytes there are as many as make a file of that size.

and to FOLDER/llama-like a Hugging Face tokenizer like Llama's: a BPE with byte fallback, spaces as ▁, <s> and </s>.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROUNDS = (3, 4, 5, 6, 7)
ROUNDS_WEIGHTS = (50, 25, 15, 6, 4)
"""3.9 rounds on average, as UltraChat has."""
MEAN_REPLIES, REPLIES_SIGMA = 21, 0.5
"""Replies that make an answer: lognormal over conversations, this sigma and mean; gives the 1,450 tokens."""
ENGLISH_SHARE = 0.9
"""Of the conversations; UltraChat is English, and an English tokenizer spells the others in many cheap tokens."""
MIN_REPLIES = 100
"""Languages with fewer replies are not drawn from: their answers would soon repeat."""
VOCABULARY = 32_000


class Round(NamedTuple):
    """A question and its reply, and where they stand."""

    language: str
    file: str
    question: str
    reply: str


def read_rounds() -> list[Round]:
    """All rounds of the corpus in its order; a dialog that is there again is left out, so is an odd last turn."""
    import yaml

    spec = importlib.util.find_spec("chatterbot_corpus")
    if not spec or not spec.origin:
        raise SystemExit("error: the texts come from chatterbot-corpus\nhint: pip install chatterbot-corpus PyYAML")
    rounds = []
    seen = set()
    for file in sorted((Path(spec.origin).parent / "data").glob("*/*.yml")):
        text = file.read_text(encoding="utf-8")
        for turns in yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["conversations"] or []:
            texts = tuple(str(turn).strip() for turn in turns) if isinstance(turns, list) else ()
            if texts in seen or not all(texts):
                continue
            seen.add(texts)
            pairs = zip(texts[::2], texts[1::2], strict=False)
            rounds += [Round(file.parent.name, f"{file.parent.name}/{file.name}", *pair) for pair in pairs]
    return rounds


def as_they_are(rounds: Iterable[Round], seed: int) -> Iterator[list[str]]:
    """Consecutive rounds of each file as conversations; fewer than 3 at the end of a file are left out."""
    rng = random.Random(seed)
    for _, group in itertools.groupby(rounds, key=lambda item: item.file):
        of_file = list(group)
        while len(of_file) >= ROUNDS[0]:
            number = rng.choices(ROUNDS, ROUNDS_WEIGHTS)[0]
            taken, of_file = of_file[:number], of_file[number:]
            yield [text for item in taken for text in (item.question, item.reply)]


def ultrachat_like(rounds: Iterable[Round], seed: int) -> Iterator[list[str]]:
    """Composed conversations without end."""
    rng = random.Random(seed)
    questions: dict[str, list[str]] = {}
    replies: dict[str, list[str]] = {}
    for item in rounds:
        questions.setdefault(item.language, []).append(item.question)
        replies.setdefault(item.language, []).append(item.reply)
    distinct = {language: list(dict.fromkeys(texts)) for language, texts in replies.items()}
    distinct = {language: texts for language, texts in distinct.items() if len(texts) >= MIN_REPLIES}
    others = {language: len(texts) for language, texts in distinct.items() if language != "english"}
    made: set[int] = set()
    while True:
        language = "english" if rng.random() < ENGLISH_SHARE else rng.choices(list(others), list(others.values()))[0]
        length = MEAN_REPLIES * rng.lognormvariate(-(REPLIES_SIGMA**2) / 2, REPLIES_SIGMA)
        conversation = []
        for _ in range(rng.choices(ROUNDS, ROUNDS_WEIGHTS)[0]):
            pool = distinct[language]
            number = min(len(pool), max(2, round(length * rng.uniform(0.5, 1.5))))
            while hash(answer := " ".join(rng.sample(pool, number))) in made:
                pass
            made.add(hash(answer))
            conversation += [rng.choice(questions[language]), answer]
        yield conversation


def write_conversations(path: Path, conversations: Iterable[list[str]], limit_bytes: float = float("inf")) -> int:
    """Write UltraChat rows until the file has `limit_bytes`; how many there are."""
    number = size = 0
    with path.open("wb") as file:
        for texts in conversations:
            size += file.write(json.dumps({"id": str(number), "data": texts}, ensure_ascii=False).encode() + b"\n")
            number += 1
            if size >= limit_bytes:
                break
    return number


def write_messages(path: Path, conversations: Iterable[list[str]]) -> None:
    """Write {"messages": [{"role", "content"}, ...]} rows."""
    with path.open("w", encoding="utf-8") as file:
        for texts in conversations:
            messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def read_conversations(path: Path) -> list[list[str]]:
    """The texts of each row."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line)["data"] for line in file]


def make_data(folder: Path, seed: int = 1, num_composed: int = 2000) -> dict[str, Path]:
    """Both data sets in `folder`, by name."""
    rounds = read_rounds()
    made = {
        "as_they_are": as_they_are(rounds, seed),
        "ultrachat_like": itertools.islice(ultrachat_like(rounds, seed), num_composed),
    }
    paths = {name: folder / f"{name}.jsonl" for name in made}
    for name, conversations in made.items():
        write_conversations(paths[name], conversations)
    return paths


def make_llama_like(folder: Path) -> Path:
    """Train the tokenizer on the corpus and save it to `folder`, which every Llama tokenizer class reads."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # words apart while training, as sentencepiece does
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator((text for item in read_rounds() for text in (item.question, item.reply)), trainer)
    values = json.loads(tokenizer.to_str())
    values["added_tokens"] = values["added_tokens"][:3]  # bytes are tokens of the model, none that a text can spell
    tokenizer = Tokenizer.from_str(json.dumps(values))
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "LlamaTokenizer", "model_max_length": 4096, "legacy": False}
    config |= {"add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False}
    config |= {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": tokenizer.get_vocab_size()}))
    return folder


def main() -> int:
    """Write everything and say what it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=float, help="size of ultrachat_like.jsonl, in place of 2,000 conversations")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    paths = make_data(arguments.folder, arguments.seed, 0 if arguments.megabytes else 2000)
    if arguments.megabytes:
        composed = ultrachat_like(read_rounds(), arguments.seed)
        write_conversations(paths["ultrachat_like"], composed, arguments.megabytes * 1e6)
    make_llama_like(arguments.folder / "llama-like")
    for path in paths.values():
        with path.open("rb") as file:
            print(f"{path}: {sum(1 for _ in file)} conversations, {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
