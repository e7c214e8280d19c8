"""What stands around the tables, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from hpcsft.evaluate.generation.conditions import Conditions
from hpcsft.evaluate.scores.sentences import prompts_sentence
from hpcsft.report.document import Results

ORDERS = {
    "both": "each pair judged in both orders",
    "random": "the order of each pair drawn as AlpacaEval draws it",
    "reference_first": "the reference always shown first",
}
LEGEND = (
    "length-only is the win rate had both answers the same length, by length alone (not AlpacaEval's length-controlled "
    "rate); same winner is the share of pairs that one answer won in both orders."
)


def setting_sentence(results: Results) -> str:
    """How the win rates came about; empty without evaluation."""
    setting = results.setting
    if setting is None:
        return ""
    return (
        f"Win rate against {setting.reference} on {setting.num_prompts} prompts, in percent; "
        f"judge {setting.judge}, {ORDERS[setting.orders]}."
    )


def noise_sentence(results: Results) -> str:
    """Which differences are noise; with nothing to compare, what the prompts could show."""
    if results.noise or results.setting is None:
        return results.noise
    return prompts_sentence(results.setting.num_prompts)


def generation_lines(results: Results) -> Iterator[str]:
    """How the answers were made, in one line for all checkpoints that are alike."""
    groups: dict[str, list[str]] = {}
    for model in results.models:
        if model.generation:
            groups.setdefault(_told(model.generation), []).append(model.name)
    for text, names in groups.items():
        yield f"Answers{' of ' + ', '.join(names) if len(groups) > 1 else ''}: {text}"


def _told(made: Conditions) -> str:
    temperature = made.settings.get("temperature") or 0
    how = f"sampled at temperature {temperature:g}, seed {made.seed}" if temperature else "greedy"
    parts = [
        how,
        f"up to {made.settings['max_new_tokens']} tokens" if "max_new_tokens" in made.settings else "",
        f"template {made.template}" if made.template else "bare instructions",
        f"{made.batching} batches in {made.dtype} on {made.device_name or made.device}",
        ", ".join(f"{name} {number}" for name, number in made.versions.items()),
    ]
    caveat = (
        "" if made.dtype == "float32" else f" In {made.dtype} some answers would be others in batches of another shape."
    )
    return f"{', '.join(filter(None, parts))}.{caveat}"


def benchmark_sentence(results: Results) -> str:
    """Settings of lm-evaluation-harness; empty without benchmarks."""
    settings = {name: value for name, value in results.benchmark_settings.items() if value is not None}
    return f"lm-evaluation-harness: {', '.join(f'{n} {v}' for n, v in settings.items())}." if results.benchmarks else ""


def training_sentence(results: Results) -> str:
    """What training did; empty if it did nothing."""
    t = results.training
    if not t:
        return ""
    skipped = f" ({t['skipped']} passed over, not finite)" if t["skipped"] else ""
    losses = f"loss {t['first_loss']:.4f} to {t['last_loss']:.4f}" if t["first_loss"] is not None else "no finite loss"
    return (
        f"Training: {t['steps']} steps{skipped}, {t['tokens']:,} tokens ({t['supervised_tokens']:,} supervised) in "
        f"{t['step_seconds']:,.0f} s of steps, {losses}, "
        f"{t['attempts']} attempt{'s' if t['attempts'] != 1 else ''}."
    )


def data_sentence(results: Results) -> str:
    """What was read and kept."""
    train, held_out = results.data["train"], results.data["validation"]
    counts = results.data["counts"]
    share = 100 * train["supervised_tokens"] / train["tokens"]
    read, dropped, bad = (counts.get(f"conversations_{fate}", 0) for fate in ("read", "dropped", "quarantined"))
    return (
        f"Data: {read:,} conversations read, {dropped:,} dropped, {bad:,} quarantined; "
        f"{train['rows']:,} training rows of {train['tokens']:,} tokens ({share:.0f}% supervised), "
        f"{held_out['rows']:,} validation rows"
    )


def provenance_sentence(results: Results) -> str:
    """Where, when and by what it was made."""
    p = results.provenance
    versions = ", ".join(f"{name} {version}" for name, version in p["packages"].items() if version)
    commit = f"commit {p['commit'][:10]}, " if p.get("commit") else ""
    return f"Made on {p['host']} at {p['time']}: {commit}Python {p['python']['version']}, {versions}."
