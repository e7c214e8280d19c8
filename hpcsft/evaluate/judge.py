"""The stage `judge`: every answer against its reference. Each verdict is journaled and never asked for twice.

evaluate/CHECKPOINT/verdicts.jsonl     key, verdict and what the judge said, as they come
evaluate/CHECKPOINT/annotations.json   AlpacaEval's format, written when all verdicts are there
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hpcsft.evaluate.judges import Judge, judge_identity, make_judge
from hpcsft.evaluate.outputs import collect_outputs
from hpcsft.evaluate.prompts import load_prompts
from hpcsft.evaluate.verdicts import Comparison, Verdict, annotations, comparisons
from hpcsft.records import append_jsonl, read_jsonl, write_json
from hpcsft.stage import StageContext


def judge(context: StageContext) -> None:
    """The body of the stage."""
    run, spec = context.run, context.spec
    prompts = load_prompts(spec.evaluate.prompts)
    outputs = {
        checkpoint: [answer.output for answer in collect_outputs(run, spec, checkpoint, prompts)]
        for checkpoint in spec.evaluated_checkpoints()
    }
    orders = spec.evaluate.judge.orders
    pairs = {checkpoint: comparisons(prompts, texts, orders) for checkpoint, texts in outputs.items()}
    total = sum(map(len, pairs.values()))
    context.progress(0, total, "verdicts")
    judge = make_judge(spec.evaluate.judge)
    done = 0
    for checkpoint, texts in outputs.items():
        folder = run.evaluate / checkpoint
        journal = VerdictJournal(folder / "verdicts.jsonl", judge, judge_identity(spec.evaluate.judge))
        for finished in journal.complete(pairs[checkpoint]):
            context.progress(done + finished, total, "verdicts")
            context.stop_if_asked()
        done += len(pairs[checkpoint])
        judged = [(pair, journal.known[pair.key(journal.identity)]) for pair in pairs[checkpoint]]
        rows = annotations(prompts, texts, judged, f"{spec.name}/{checkpoint}", judge.name)
        write_json(folder / "annotations.json", rows)
        context.say(f"{checkpoint}: {len(judged)} verdicts by {judge.name}")
    context.progress(total, total, "verdicts")


class VerdictJournal:
    """Verdicts that are known, and the file that keeps them."""

    def __init__(self, path: Path, judge: Judge, identity: str):
        self.path = path
        self.judge = judge
        self.identity = identity
        self.known: dict[str, Verdict] = {
            row["key"]: Verdict(row["first_better"], row["raw"])
            for file in sorted(path.parent.parent.glob("*/verdicts.jsonl"))  # checkpoints may give the same answer
            for row in read_jsonl(file)
            if row["first_better"] is not None  # a reply without a verdict is asked for again
        }

    def complete(self, pairs: list[Comparison]) -> Iterator[int]:
        """Ask for what is not known, keep each verdict at once, and yield how many of `pairs` are known so far."""
        missing = {pair.key(self.identity): pair for pair in pairs}
        for key in self.known:
            missing.pop(key, None)
        yield len(pairs) - len(missing)
        for place, (pair, verdict) in enumerate(self.judge.verdicts(list(missing.values())), start=1):
            key = pair.key(self.identity)
            self.known[key] = verdict
            append_jsonl(self.path, {"key": key, "row": pair.row, "model_first": pair.model_first, **verdict._asdict()})
            yield len(pairs) - len(missing) + place
