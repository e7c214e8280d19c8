"""Results as Markdown and as AlpacaEval's leaderboard.csv. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hpcsft.evaluate.scores import Difference
from hpcsft.report.results import CheckpointResult, Results

LEADERBOARD_COLUMNS = (
    "win_rate",
    "standard_error",
    "n_wins",
    "n_wins_base",
    "n_draws",
    "n_total",
    "discrete_win_rate",
)
ORDERS = {
    "both": "each pair judged in both orders",
    "random": "the order of each pair drawn as AlpacaEval draws it",
    "reference_first": "the reference always shown first",
}


def leaderboard_csv(results: Results) -> str:
    """leaderboard.csv: AlpacaEval's columns, the checkpoint's name as index, and the validation loss."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *LEADERBOARD_COLUMNS, "mode", "avg_length", "validation_loss"])
    for row in results.checkpoints:
        if row.scores:
            values = [getattr(row.scores, column) for column in LEADERBOARD_COLUMNS]
            name = f"{results.name}/{row.checkpoint}"
            writer.writerow([name, *values, "community", row.scores.avg_length, row.validation_loss])
    return text.getvalue()


def report_markdown(results: Results) -> str:
    """report.md."""
    parts = [f"# {results.name}"]
    if results.judge:
        parts.append(
            f"Win rate against the reference on {results.num_prompts} prompts, in percent; "
            f"judge {results.judge}, {ORDERS[results.orders or 'both']}."
        )
    parts.append(_table(results))
    if results.differences:
        parts.append(noise_sentence(results.differences))
    parts += [_training(results), _data(results), _provenance(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(results: Results) -> str:
    if not results.judge:
        rows = [[row.checkpoint, _number(row.validation_loss, 4)] for row in results.checkpoints]
        return markdown_table(["checkpoint", "validation loss"], rows)
    header = [
        "checkpoint",
        "val. loss",
        "win rate",
        "win/draw/loss",
        "length",
        "shown 1st/2nd",
        "cut/empty/no verdict",
    ]
    return markdown_table(header, [_cells(row) for row in results.checkpoints if row.scores])


def _cells(row: CheckpointResult) -> list[str]:
    scores = row.scores
    assert scores is not None
    bias = scores.position_bias
    return [
        row.checkpoint,
        _number(row.validation_loss, 4),
        f"{_number(scores.win_rate, 2)} ± {_number(scores.standard_error, 2)}",
        f"{scores.n_wins}/{scores.n_draws}/{scores.n_wins_base}",
        _number(scores.avg_length, 0),
        f"{_number(bias.first, 1)}/{_number(bias.second, 1)}",
        f"{row.num_cut}/{row.num_empty}/{scores.n_unparsed}",
    ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = "| " + " | ".join(["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]) + " |"
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def noise_sentence(differences: Sequence[Difference]) -> str:
    """Which differences are more than noise, in one sentence."""
    real = [_told(difference) for difference in differences if difference.significant]
    noise = [_told(difference) for difference in differences if not difference.significant]
    parts = []
    if real:
        parts.append(f"beyond noise (paired, 5%): {'; '.join(real)}")
    if noise:
        parts.append(f"within noise: {'; '.join(noise)}")
    sentence = "; ".join(parts)
    return f"Differences {sentence}."


def _told(difference: Difference) -> str:
    z = f", z = {difference.z:.2f}" if difference.z is not None else ""
    return f"{difference.before} to {difference.after} {difference.difference:+.2f} points{z}"


def _training(results: Results) -> str:
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


def _data(results: Results) -> str:
    train, held_out = results.data["train"], results.data["validation"]
    counts = results.data["counts"]
    share = 100 * train["supervised_tokens"] / train["tokens"]
    read, dropped, bad = (counts.get(f"conversations_{fate}", 0) for fate in ("read", "dropped", "quarantined"))
    return (
        f"Data: {read:,} conversations read, {dropped:,} dropped, {bad:,} quarantined; "
        f"{train['rows']:,} training rows of {train['tokens']:,} tokens ({share:.0f}% supervised), "
        f"{held_out['rows']:,} validation rows; more in [data.html](data.html)."
    )


def _provenance(results: Results) -> str:
    p = results.provenance
    versions = ", ".join(f"{name} {version}" for name, version in p["packages"].items() if version)
    commit = f"commit {p['commit'][:10]}, " if p.get("commit") else ""
    return f"Made on {p['host']} at {p['time']}: {commit}Python {p['python']['version']}, {versions}."


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
