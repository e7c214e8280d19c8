"""Annotation files in the formats that AlpacaEval has written, made from seeds, and rows in the form of the library."""

from __future__ import annotations

import random
from typing import Any

from hpcsft.evaluate.scores.annotations import Annotations, Row

NAN = float("nan")
HARD = [1.0, 2.0]
WITH_DRAWS = [1, 2, 1.5]
ALL_SORTS: list[Any] = [1.0, 2.0, 1, 2, 1.5, 0, 0.0, None, NAN, 3.0, 2.0000001, 0.5, "weighted"]


def alpaca_rows(seed: int, count: int, kinds: list[Any], name: str = "model") -> list[dict[str, Any]]:
    """Rows as AlpacaEval writes them now; a reply follows from the verdict and the order that was drawn."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        kind = generator.choice(kinds)
        preference = 1 + generator.random() if kind == "weighted" else kind
        instruction = f"Question {number}, 第{seed}?\n"
        rows.append(
            {
                "instruction": instruction,
                "output_1": "a" * generator.randint(1, 900),
                "generator_1": "text_davinci_003",
                "dataset": generator.choice(["koala", "vicuna"]),
                "output_2": "é" * generator.randint(0, 3000),
                "generator_2": name,
                "annotator": "alpaca_eval_gpt4",
                "preference": preference,
                "raw_completion": reply(preference, drawn(instruction)),
            }
        )
    return rows


def drawn(instruction: str, seed: int = 0) -> bool:
    """AlpacaEval's draw, written down once more: is the model shown first?"""
    return random.Random("is_switched_outputs" + instruction + str(seed)).choices([False, True], k=1)[0]


def reply(preference: Any, model_first: bool) -> str | None:
    """What a judge says that prefers so."""
    if preference not in (1, 2):
        return None
    return "Output (a)" if (preference == 2) == model_first else "Output (b)"


def old(rows: list[dict[str, Any]], generator: str) -> list[dict[str, Any]]:
    """The same rows as older versions wrote them."""
    gone = ("generator_1", "generator_2", "raw_completion")
    return [{**{k: v for k, v in row.items() if k not in gone}, "generator": generator} for row in rows]


def kept(rows: list[dict[str, Any]]) -> list[float]:
    """u of the rows that count, by the definition."""
    values = [1.5 if row["preference"] == 0 else row["preference"] for row in rows]
    return [p - 1 for p in values if p is not None and p == p and 1 <= p <= 2]


def model(name: str, utilities: list[float | None], lengths: list[tuple[int, int]] | None = None) -> Annotations:
    """A model with these utilities; lengths are (reference, model)."""
    pairs = lengths or [(10, 7)] * len(utilities)
    rows = [Row(f"question {n}", "", u, *pairs[n]) for n, u in enumerate(utilities)]
    return Annotations(name, "reference", "judge", tuple(rows))
