"""The stage `judge`: every answer against its reference. Each verdict is journaled and never asked for twice.

evaluate/CHECKPOINT/verdicts.jsonl     key, verdict and what the judge said, as they come
evaluate/CHECKPOINT/annotations.json   AlpacaEval's format, written when all verdicts are there
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcsft.evaluate.checks import check_answers, refuse_bad
from hpcsft.evaluate.judges import judge_identity, make_judge
from hpcsft.evaluate.judges.cost import estimate
from hpcsft.evaluate.judges.journal import VerdictJournal
from hpcsft.evaluate.other_outputs import read_outputs
from hpcsft.evaluate.outputs import Answer, collect_answers, write_outputs
from hpcsft.evaluate.prompts import Prompt, load_prompts
from hpcsft.evaluate.verdicts import Comparison, annotations, comparisons
from hpcsft.records import write_json
from hpcsft.stage import StageContext

FORCE, OVER_BUDGET = "--force", "--over-budget"
"""Judge in spite of the checks; beyond evaluate.judge.max_cost_usd."""


def judge(context: StageContext) -> None:
    """The body of the stage. Raises Waiting if the answers are not worth a judge, or there is none to ask."""
    run, spec = context.run, context.spec
    prompts = load_prompts(spec.evaluate.prompts)
    answers = _collect(context, prompts)
    _check(context, answers)
    settings = spec.evaluate.judge
    if OVER_BUDGET in context.options:
        settings = settings.model_copy(update={"max_cost_usd": None})
    outputs = {name: [answer.output for answer in given] for name, given in answers.items()}
    pairs = {name: comparisons(prompts, texts, settings.orders, settings.order_seed) for name, texts in outputs.items()}
    total = sum(map(len, pairs.values()))
    context.progress(0, total, "verdicts")
    judge, identity = make_judge(settings), judge_identity(settings)
    _tell_cost(context, VerdictJournal(run.evaluate / next(iter(pairs)) / "verdicts.jsonl", judge, identity), pairs)
    done = 0
    for name, texts in outputs.items():
        journal = VerdictJournal(run.evaluate / name / "verdicts.jsonl", judge, identity)
        for finished in journal.complete(pairs[name]):
            context.progress(done + finished, total, "verdicts")
            context.stop_if_asked()
        done += len(pairs[name])
        judged = [(pair, journal.known[pair.key(identity)]) for pair in pairs[name]]
        rows = annotations(prompts, texts, judged, _generator(context, name), judge.name)
        write_json(run.evaluate / name / "annotations.json", rows)
        context.say(f"{name}: {len(judged)} verdicts by {judge.name}")
    context.progress(total, total, "verdicts")


def _tell_cost(context: StageContext, journal: VerdictJournal, pairs: dict[str, list[Comparison]]) -> None:
    """What it will take is told, and Waiting raised if it is more than may be spent, before anything is asked."""
    missing = journal.missing([pair for given in pairs.values() for pair in given])
    cost = estimate(journal.judge.spec, missing)
    usd = f", about {cost.usd:.2f} USD" if cost.usd is not None else ""
    context.say(
        f"{cost.num_requests} questions for {journal.judge.name}: about {cost.input_tokens:,} tokens to read, at most "
        f"{cost.max_output_tokens:,} to write{usd}"
    )
    journal.budget.check(missing)


def _collect(context: StageContext, prompts: Sequence[Prompt]) -> dict[str, list[Answer]]:
    """Name -> answers in the order of the prompts, of the checkpoints and of the other models; written for all."""
    run, spec = context.run, context.spec
    answers = {name: collect_answers(run, name, prompts) for name in spec.evaluated_checkpoints()}
    answers |= {name: read_outputs(name, path, prompts) for name, path in spec.evaluate.outputs.items()}
    for name, given in answers.items():
        write_outputs(run, name, _generator(context, name), given, prompts)
    return answers


def _check(context: StageContext, answers: dict[str, list[Answer]]) -> None:
    """Count what is wrong with the answers, tell it, and refuse what no judge should be paid for."""
    checks = {name: check_answers(given) for name, given in answers.items()}
    write_json(context.run.checks, {name: found.model_dump() for name, found in checks.items()})
    for name, found in checks.items():
        context.say(f"{name}: {found.told()}")
    if FORCE not in context.options:
        refuse_bad(checks, context.spec.evaluate.checks)


def _generator(context: StageContext, name: str) -> str:
    """How a model is called in AlpacaEval's files."""
    return name if name in context.spec.evaluate.outputs else f"{context.spec.name}/{name}"
