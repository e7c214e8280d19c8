"""Training rows and held-out prompts of the quickstart, from the PyPI package chatterbot-corpus.

Twelve of its 21 English categories make sensible chat data. Left out are ai, botprofile, emotion, food,
gossip and psychology (a bot's invented life, insults), movies (robots, and a line in French), humor (one
question, thirty jokes) and sports (questions cut off in the middle). In what is kept, tech_support repeats
ten dialogs 105 times and coding doubles most of its own: every dialog is taken once. Only conversations,
health and one dialog of literature have more than one exchange.
"""

from __future__ import annotations

import ast
import json
import random
import re
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.errors import HpcsftError

DEFINITIONS = ("computers", "history", "literature", "money", "politics", "science")
PROMPT_CATEGORIES = (*DEFINITIONS, "tech_support", "trivia")
FACT_CATEGORIES = (*PROMPT_CATEGORIES, "coding")  # their replies answer; those of the other categories chat
CATEGORIES = (*FACT_CATEGORIES, "conversations", "greetings", "health")
ALTERNATIVES = ("computers",)  # the turns after the first are no dialog but replies to choose from
EVASIVE = re.compile(r"\b(i|i'm|i've|me|my|we)\b|\?$|^(what|who) is\b", re.IGNORECASE)  # or asks back
ODD = re.compile(r"\bguns?\b|^it$|^an invitation to a burial$|o is to v|^linux, always", re.IGNORECASE)
SMALL_TALK = re.compile(r"\b(you|your|we)\b", re.IGNORECASE)
MIN_PROMPT_WORDS = 3  # "asimov" is a topic, no instruction


class Dialog(NamedTuple):
    """Turns of user and assistant, alternating and even in number."""

    id: str
    category: str
    turns: tuple[str, ...]


def is_sensible(category: str, turns: tuple[str, ...]) -> bool:
    """False where facts are asked and the reply evades, and for Python code that lost its brackets."""
    if category not in FACT_CATEGORIES:
        return True
    prose, *blocks = turns[1].split("```")
    if EVASIVE.search(prose.strip()) or any(ODD.search(turn) for turn in turns):
        return False
    try:
        for code in blocks[::2] if "Python" in turns[0] else ():
            ast.parse(code)
    except SyntaxError:
        return False
    return True


def dialogs_of(category: str, conversation: Any) -> list[tuple[str, ...]]:
    """One conversation of the corpus as dialogs, without an odd last turn; none if a turn is empty."""
    if not isinstance(conversation, list):  # trivia holds one bare string
        return []
    turns = [str(turn).strip() for turn in conversation]
    dialogs = [(turns[0], reply) for reply in turns[1:]] if category in ALTERNATIVES else [tuple(turns)]
    even = [dialog[: len(dialog) // 2 * 2] for dialog in dialogs]
    return [dialog for dialog in even if dialog and all(dialog) and is_sensible(category, dialog)]


def read_dialogs(corpus: Path) -> list[Dialog]:
    """Every sensible English dialog of the chatterbot-corpus installed at `corpus`, each once."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    unique: dict[tuple[str, ...], Dialog] = {}
    for category in CATEGORIES:
        text = (corpus / "data" / "english" / f"{category}.yml").read_text(encoding="utf-8")
        conversations = yaml.load(text, Loader=loader)["conversations"]
        found = chain.from_iterable(dialogs_of(category, conversation) for conversation in conversations)
        for number, turns in enumerate(found):
            unique.setdefault(turns, Dialog(f"{category}-{number:04d}", category, turns))
    return list(unique.values())


def topic(text: str) -> str:
    """`text` without case, punctuation and articles: what two spellings of one question have in common."""
    return " ".join(re.sub(r"\b(a|an|the)\b|[\W_]+", " ", text.casefold()).split())


def is_prompt(dialog: Dialog, category: str) -> bool:
    """Whether this is one exchange that begins with an instruction about the world."""
    question = dialog.turns[0]
    if dialog.category != category or len(dialog.turns) != 2 or SMALL_TALK.search(question):
        return False
    return len(question.split()) >= MIN_PROMPT_WORDS


def choose_prompts(dialogs: list[Dialog], count: int, seed: int) -> list[Dialog]:
    """`count` dialogs to hold out, from every category in turn, at most half of a category's questions."""
    rng = random.Random(seed)
    drawn = []
    for category in PROMPT_CATEGORIES:
        first_reply = {topic(d.turns[0]): d for d in reversed(dialogs) if is_prompt(d, category)}
        drawn.append(rng.sample(list(first_reply.values()), len(first_reply) // 2))
    in_turn = [dialog for dialog in chain.from_iterable(zip_longest(*drawn)) if dialog]
    unique = list({topic(dialog.turns[0]): dialog for dialog in in_turn}.values())
    if count > len(unique):
        raise HpcsftError(f"--prompts {count}: the corpus has only {len(unique)}", f"--prompts {len(unique)}")
    return unique[:count]


def choose_training(dialogs: list[Dialog], prompts: list[Dialog], count: int | None, seed: int) -> list[Dialog]:
    """The dialogs in which no held-out question appears, shuffled; at most `count` of them."""
    held_out = [topic(prompt.turns[0]) for prompt in prompts]
    leaks = (any(question in topic(turn) for turn in d.turns for question in held_out) for d in dialogs)
    kept = [dialog for dialog, leak in zip(dialogs, leaks, strict=True) if not leak]
    random.Random(seed).shuffle(kept)
    return kept[:count]


def training_text(dialogs: list[Dialog]) -> str:
    """UltraChat's JSONL."""
    rows = ({"id": dialog.id, "data": dialog.turns} for dialog in dialogs)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def prompts_text(dialogs: list[Dialog]) -> str:
    """AlpacaEval's JSON list, the corpus's reply as the reference output."""
    corpus = "chatterbot-corpus"
    rows = [
        {"instruction": question, "output": reply, "generator": corpus, "dataset": f"{corpus}/{category}"}
        for _, category, (question, reply) in dialogs
    ]
    return json.dumps(rows, ensure_ascii=False, indent=2) + "\n"


def count_tokens(dialogs: list[Dialog], tokenizer_json: Path) -> int:
    """Roughly an epoch's tokens: every turn with its `User: ` or `Assistant: `, newline and end token."""
    from tokenizers import Tokenizer

    texts = [f"{('User', 'Assistant')[i % 2]}: {t}\n" for d in dialogs for i, t in enumerate(d.turns)]
    return sum(len(encoding) + 1 for encoding in Tokenizer.from_file(str(tokenizer_json)).encode_batch(texts))
