"""The Rust tokenizer alone: every text of every turn, 512 conversations at a time, ids left on the Rust side."""

from __future__ import annotations

import argparse
import json

from tokenizers import Tokenizer

from tests.benchmarks.peers.timing import Peer, measure

CHUNK = 512


def prepare(arguments: argparse.Namespace) -> Peer:
    """Texts are read before the clock starts; lengths are counted after it stopped."""
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer / "tokenizer.json"))

    def load(file) -> list[list[str]]:
        return [json.loads(line)["data"] for line in file.open(encoding="utf-8")]

    def work(conversations: list[list[str]]) -> list[list[str]]:
        for start in range(0, len(conversations), CHUNK):
            texts = [text for turns in conversations[start : start + CHUNK] for text in turns]
            tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return conversations

    def count(conversations: list[list[str]]) -> tuple[int, int]:
        encoded = tokenizer.encode_batch_fast([text for turns in conversations for text in turns], False, False)
        return sum(len(encoding) for encoding in encoded), len(conversations)

    return Peer(work, count, load)


if __name__ == "__main__":
    measure(prepare)
