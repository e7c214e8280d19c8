"""What came of it: the table, the comparison with the undisturbed run, the publishes of attempts long gone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from hpcsft.records import read_jsonl
from hpcsft.rundir import RunDir
from tests.chaos.harness import Record

HEAD = ("#", "fault", "step", "notice", "lost", "allowed", "attempts", "back s", "")
WIDTHS = (4, 28, 7, 7, 6, 8, 9, 8, 0)


def table_line(cells: Sequence[object]) -> str:
    """One line of the table."""
    return "".join(f"{cell!s:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def record_line(record: Record) -> str:
    """The line of one fault."""
    back = "never" if record.back_s is None else f"{record.back_s:.1f}"
    cells = (record.number, record.fault, record.step, "yes" if record.noticed else "no", record.lost, record.allowed)
    return table_line((*cells, record.attempts, back, "PROBLEM" if record.problems else ""))


def totals(records: Sequence[Record], codes: dict[int, int]) -> str:
    """The sums below the table."""
    backs = sorted(record.back_s for record in records if record.back_s is not None)
    noticed = [record.lost for record in records if record.noticed]
    others = [record.lost for record in records if not record.noticed]
    lines = [f"{len(records)} faults, {sum(record.attempts for record in records)} attempts after the first"]
    lines.append(f"steps lost: with notice {sum(noticed)} in {len(noticed)} faults, without {others}")
    if backs:
        lines.append(f"back after: median {backs[len(backs) // 2]:.1f} s, longest {backs[-1]:.1f} s")
    lines.append(f"the monitor's answers: {', '.join(f'{count} x {code}' for code, count in sorted(codes.items()))}")
    return "\n".join(lines)


def differences(reference: RunDir, run: RunDir) -> list[str]:
    """In what the run differs from the undisturbed one: weights by their sha256, losses by their hex digits."""
    found = []
    wanted, given = weights(reference), weights(run)
    if not wanted:
        found.append("the undisturbed run has exported nothing")
    for name in sorted({*wanted, *given}):
        if wanted.get(name) != given.get(name):
            found.append(f"{name}: sha256 {given.get(name)}, undisturbed {wanted.get(name)}")
    for file in ("metrics.jsonl", "validation.jsonl"):
        rows, undisturbed = losses(run, file), losses(reference, file)
        if rows != undisturbed:
            pairs = enumerate(zip(rows, undisturbed, strict=False))
            place = next((place for place, (one, other) in pairs if one != other), min(len(rows), len(undisturbed)))
            found.append(
                f"{file}: {len(rows)} rows, undisturbed {len(undisturbed)}; the first that differs is row {place}: "
                f"{rows[place : place + 1]}, undisturbed {undisturbed[place : place + 1]}"
            )
    return found


def weights(run: RunDir) -> dict[str, str]:
    """Path below models/ -> sha256 of every exported weights file."""
    files = sorted(run.models.glob("epoch-*/*.safetensors"))
    return {str(file.relative_to(run.models)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def losses(run: RunDir, file: str) -> list[tuple[int, str]]:
    """Step and loss, to the last bit, of every row."""
    return [(row["step"], float(row["loss"]).hex()) for row in read_jsonl(run.path / file)]


def late_publishes(journal: Sequence[dict[str, Any]]) -> list[str]:
    """Checkpoints that an attempt published after a newer one had started."""
    newest, found = None, []
    for row in journal:
        attempt = (row["job_id"], row["restart"])
        if row["event"] == "start":
            newest = attempt
        elif row["event"] == "saved" and attempt != newest:
            found.append(f"{row['time']}: attempt {attempt} published step {row['step']} though {newest} had started")
    return found
