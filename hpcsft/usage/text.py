"""What a run has used, in short lines for the end of a screen. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping

from hpcsft.usage.record import Advice, Hours, StageUsage, Usage

INDENT = " " * len("advice: ")


def usage_lines(usage: Usage, width: int = 100) -> list[str]:
    """One line or more for each stage, the totals and the advice. Only single words may be longer than `width`."""
    lines: list[str] = []
    indent = max(len(name) for name in ["total", *(stage.stage for stage in usage.stages)]) + 2
    for stage in usage.stages:
        lines += _wrapped(stage.stage.ljust(indent), _stage(stage), width)
    for total in usage.totals:
        lines += _wrapped("total".ljust(indent), [_hours(total)], width)
    for advice in usage.advice:
        lines += _advice(advice, width)
    return lines


def duration(seconds: float) -> str:
    """In at most two units: 42 s, 5 min, 2 h 05 min, 3 d 4 h."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _stage(usage: StageUsage) -> Iterator[str]:
    ran = f"ran {duration(usage.longest_task_s)}"
    yield ran + (f" in {usage.attempts} attempts ({_causes(usage.restarts)})" if usage.restarts else "")
    yield f"queued {duration(usage.queue_s + usage.requeue_s)}"
    if usage.longest_attempt_s:
        yield f"{_percent(usage.longest_attempt_s / usage.limit_s)} of the time limit"
    if usage.gpu_memory_gb and usage.gpu_total_gb:
        yield f"{usage.gpu_memory_gb:.1f} of {usage.gpu_total_gb:.0f} GB of a GPU"
    elif usage.gpu_memory_gb:
        yield f"{usage.gpu_memory_gb:.1f} GB of a GPU"
    elif usage.memory_gb:
        yield f"{usage.memory_gb:.1f}" + (f" of {usage.asked_memory_gb:g}" if usage.asked_memory_gb else "") + " GB"
    yield _hours(usage.hours)
    if usage.steps_again:
        yield f"{usage.steps_again} steps done again"


def _causes(restarts: Mapping[str, int]) -> str:
    return ", ".join(f"{cause.replace('_', ' ')} {count}" for cause, count in restarts.items())


def _hours(hours: Hours) -> str:
    spent = [("computed", hours.computed), ("lost", hours.lost), ("waiting", hours.waiting)]
    if hours.total < 0.005:
        return f"under 0.01 {hours.unit}"
    amount = f"{hours.total:.2f}" if hours.total < 10 else f"{hours.total:,.0f}"
    if hours.computed == hours.total:
        return f"{amount} {hours.unit}"
    shares = ", ".join(f"{_percent(hours.share(value))} {name}" for name, value in spent if value)
    return f"{amount} {hours.unit}: {shares}"


def _percent(share: float) -> str:
    return "under 1%" if 0 < share < 0.005 else f"{share:.0%}"


def _wrapped(head: str, parts: Iterable[str], width: int) -> list[str]:
    """`parts` with dots between them, in lines that begin below each other, `head` before the first."""
    rows: list[str] = []
    for part in parts:
        if rows and len(head) + len(rows[-1]) + 3 + len(part) <= width:
            rows[-1] += f" · {part}"
        else:
            rows.append(part)
    return [(" " * len(head) if number else head) + row for number, row in enumerate(rows)]


def _advice(advice: Advice, width: int) -> list[str]:
    text = f"advice: {advice.stage or 'it'} {advice.text}"
    *lines, last = textwrap.wrap(text, width, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False)
    if not advice.setting:
        return [*lines, last]
    setting = f"--set {advice.setting}"
    if len(last) + 2 + len(setting) <= width:
        return [*lines, f"{last}: {setting}"]
    return [*lines, f"{last}:", INDENT + setting]
