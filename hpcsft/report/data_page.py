"""report/data.html: the audit of the data as a page that needs nothing but itself. Pure.

No script, no file beside it; every text of the data is escaped, and what a browser would obey is made visible.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hpcsft.data.readable import visible

STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5d6975; --line: #d9dee3; --page: #fff; --box: #f4f6f8;
  --bar: #3b7dd8; --learnt: #d4f2dc; --learnt-ink: #0d4a22; --warn: #9a3412; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9aa6b2; --line: #39424c; --page: #14181c;
  --box: #1d2329; --bar: #6ea8fe; --learnt: #12402a; --learnt-ink: #c9f5d8; --warn: #fdba74; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); } .warn { color: var(--warn); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.tiles div { background: var(--box); border-radius: .5rem; padding: .6rem .8rem; color: var(--soft); }
.tiles b { display: block; font-size: 1.25rem; color: var(--ink); font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
th { color: var(--soft); font-weight: normal; } .number { text-align: right; white-space: nowrap; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1.2rem; }
figure { margin: 0; } figcaption { color: var(--soft); } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 13px; } svg rect { fill: var(--bar); } svg line { stroke: var(--line); }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .6rem 0; }
summary { padding: .5rem .8rem; cursor: pointer; color: var(--soft); }
.row { margin: 0; padding: .8rem; border-top: 1px solid var(--line); white-space: pre-wrap;
  font: .85rem/1.55 ui-monospace, Menlo, Consolas, monospace; }
mark { background: var(--learnt); color: var(--learnt-ink); border-radius: .15rem; } .row i { opacity: .6; }
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}: data</title><style>{style}</style></head>
<body>
{body}
</body></html>
"""

OPEN_ROWS = 2
"""Rows that are unfolded from the start."""


def data_page(audit: Mapping[str, Any], name: str) -> str:
    """The page of the run `name`, from data/audit.json."""
    parts = [f"<h1>{_text(name)}: the data</h1>", _rules(audit["rules"]), _tiles(audit), *_fate(audit)]
    parts += [_splits(audit["splits"]), _plots(audit["train"], audit["rules"]["max_length"]), _packing(audit["train"])]
    parts += _quarantine(audit["quarantine"], audit["fate"]["quarantined"])
    parts += _samples(audit["samples"], audit["train"]["rows"])
    return PAGE.format(title=_text(name), style=STYLE, body="\n".join(parts))


def _text(value: object) -> str:
    return html.escape(visible(str(value)))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def _table(header: Sequence[str] | None, rows: Sequence[Sequence[object]]) -> str:
    """Cells that are numbers stand to the right."""

    def line(cells: Sequence[object], tag: str, like: Sequence[object]) -> str:
        kinds = [' class="number"' if isinstance(cell, int) else "" for cell in like]
        texts = [f"{cell:,}" if isinstance(cell, int) else _text(cell) for cell in cells]
        return "<tr>" + "".join(f"<{tag}{k}>{t}</{tag}>" for k, t in zip(kinds, texts, strict=True)) + "</tr>"

    head = line(header, "th", rows[0]) if header else ""
    return f"<table>{head}{''.join(line(row, 'td', row) for row in rows)}</table>"


def _rules(rules: Mapping[str, Any]) -> str:
    shown = ("template", "mask", "max_length", "overlong", "sample")
    facts = [f"{name} {rules[name]}" for name in shown if rules[name] is not None]
    facts += [f"{name} {value}" for name, value in rules["filter"].items() if value is not None]
    return f'<p class="soft">{_text(" · ".join(facts))}</p>'


def _tiles(audit: Mapping[str, Any]) -> str:
    train = audit["train"]
    tiles = {
        "training rows": f"{train['rows']:,}",
        "tokens": f"{train['tokens']:,}",
        "of them learnt": _percent(train["supervised_share"]),
        "of each micro batch filled": _percent(train["packing"]["filled_share"]),
        "conversations quarantined": f"{audit['fate']['quarantined']:,}",
    }
    return '<div class="tiles">' + "".join(f"<div><b>{v}</b>{k}</div>" for k, v in tiles.items()) + "</div>"


def _fate(audit: Mapping[str, Any]) -> Iterator[str]:
    fate = audit["fate"]
    yield "<h2>What became of the conversations</h2>"
    yield (
        f"<p>{fate['read']:,} were read: {fate['kept']:,} kept, {fate['dropped']:,} dropped, "
        f"{fate['quarantined']:,} quarantined.</p>"
    )
    rows: list[tuple[str, int]] = [(f"dropped: {reason}", number) for reason, number in fate["dropped_because"].items()]
    told = {
        "conversations_overlong": "conversations over max_length",
        "exchanges_lost": "exchanges lost at a cut, as in the reference project",
        "rows_truncated": "rows cut off at max_length",
        "tokens_truncated": "tokens cut off",
        "rows_without_loss": "rows left out because nothing in them would be learnt",
    }
    rows += [(words, fate[name]) for name, words in told.items() if fate[name]]
    rows += [("tokens read", fate["tokens_read"]), ("tokens in rows", fate["tokens_in_rows"])]
    yield _table(None, rows)
    if fate["tokens_in_rows"] > fate["tokens_read"]:
        yield '<p class="soft">More than were read: what precedes a part or an answer is in its row again.</p>'


def _splits(splits: Mapping[str, Mapping[str, int]]) -> str:
    fields = {"conversations": "conversations", "rows": "rows", "tokens": "tokens", "supervised_tokens": "learnt"}
    rows = [(words, *(totals[field] for totals in splits.values())) for field, words in fields.items()]
    return f"<h2>Training and validation</h2>{_table(['', *splits], rows)}"


def _plots(train: Mapping[str, Any], max_length: int) -> str:
    figures = {"Tokens of a training row": train["lengths"], "Learnt tokens of a training row": train["supervised"]}
    plots = "".join(_plot(title, figure, max_length) for title, figure in figures.items())
    return f'<h2>Lengths of training rows</h2><div class="plots">{plots}</div>'


def _plot(title: str, figure: Mapping[str, Any], max_length: int) -> str:
    bars, width, height = figure["bars"], 400, 150
    highest, each = max(bars), width / len(bars)
    shapes = [
        f'<rect x="{each * number + 0.5:.1f}" y="{20 + height * (1 - count / highest):.1f}" width="{each - 1:.1f}" '
        f'height="{height * count / highest:.1f}"><title>{number * figure["width"] + 1:,} to '
        f"{min(max_length, (number + 1) * figure['width']):,} tokens: {count:,} rows</title></rect>"
        for number, count in enumerate(bars)
        if count
    ]
    axis = f'<line x1="0" x2="{width}" y1="{20 + height}" y2="{20 + height}"/>'
    labels = [
        f'<text x="0" y="13">{highest:,} rows</text>',
        f'<text x="0" y="{height + 36}">1</text>',
        f'<text x="{width / 2}" y="{height + 36}" text-anchor="middle">{max_length // 2:,}</text>',
        f'<text x="{width}" y="{height + 36}" text-anchor="end">{max_length:,}</text>',
    ]
    drawing = "".join([axis, *shapes, *labels])
    told = f"median {figure['median']:,}, 95% up to {figure['p95']:,}, most {figure['max']:,}"
    return (
        f'<figure><figcaption>{title}: {told}</figcaption><svg viewBox="0 0 {width} {height + 42}" role="img" '
        f'aria-label="{title}: {told}">{drawing}</svg></figure>'
    )


def _packing(train: Mapping[str, Any]) -> str:
    packing = train["packing"]
    how = "Rows are packed" if packing["packing"] else "Rows are not packed"
    return (
        f"<h2>Micro batches</h2><p>{how}: one epoch is {packing['micro_batches']:,} micro batches in "
        f"{packing['steps']:,} steps. Each has room for {packing['positions_per_micro_batch']:,} tokens and is "
        f"{_percent(packing['filled_share'])} filled on average; rows lie end to end, so no position is padding.</p>"
        f"<p>With rows padded to the longest of their micro batch {_percent(packing['padded_real_share'])} of the "
        "positions would be real tokens.</p>"
    )


def _quarantine(quarantine: Mapping[str, Any], number: int) -> Iterator[str]:
    if number:
        yield f'<h2 class="warn">Quarantine: {number:,} rows that are no conversations</h2>'
        yield _table(("reason", "rows"), [(group["reason"], group["rows"]) for group in quarantine["reasons"]])
        yield f'<p class="soft">The first {len(quarantine["first"])}; all of them stand in data/quarantine.jsonl.</p>'
        for bad in quarantine["first"]:
            yield f"<details><summary>{_text(bad['file'])}, row {bad['row']:,}: {_text(bad['reason'])}</summary>"
            yield f'<div class="row">{_text(bad["excerpt"])}</div></details>'


def _samples(samples: Sequence[Mapping[str, Any]], rows: int) -> Iterator[str]:
    yield f"<h2>{len(samples)} of the training rows</h2>"
    legend = '<mark>Marked text is learnt</mark>, the rest is only read; <i class="soft">special tokens</i> are dim.'
    yield f"<p>{legend}</p>"
    for place, sample in enumerate(samples):
        runs = "".join(_run(run) for run in sample["runs"])
        start = " open" if place < OPEN_ROWS else ""
        yield f"<details{start}><summary>Row {sample['row']:,} of {rows:,}, {sample['tokens']:,} tokens</summary>"
        yield f'<div class="row">{runs}</div></details>'


def _run(run: Mapping[str, Any]) -> str:
    text = f"<i>{_text(run['text'])}</i>" if run["special"] else _text(run["text"])
    return f"<mark>{text}</mark>" if run["learnt"] else text
