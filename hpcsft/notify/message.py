"""The words for an event, in the forms that webhooks and commands take. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpcsft.notify.event import Event
from hpcsft.spec.notify import FILLED_IN

MESSAGE_LENGTH = 1000
"""Characters of a message that are told; the run directory has the rest."""

CONTENT_LENGTH = 2000
"""Characters that Discord takes; it refuses more."""

SLACK_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
"""What has a meaning in Slack, and how it is written without one: nobody shall be paged by a message's <!channel>."""

VERBS = {"failed": "failed", "waiting": "waits for you"}


def document_of(name: str, run_dir: str, event: Event, result: str | None, time: str) -> dict[str, Any]:
    """What a webhook gets as JSON. `result` is what a run that is done has found out, in one line."""
    message = _one_line(event.message or result or "")
    hint = _one_line((event.hint or "").replace("RUN_DIR", run_dir)) or None
    what = f"{event.stage} {VERBS[event.state]}" if event.stage else event.state
    first = f"{name}: {what}" + (f": {message}" if message else "")
    text = f"{first}\n{hint}\n{run_dir}" if hint and run_dir not in hint else f"{first}\n{hint or run_dir}"
    return {
        "text": "".join(SLACK_MARKUP.get(character, character) for character in text),
        "content": text[:CONTENT_LENGTH],
        "name": name,
        "run_dir": run_dir,
        "state": event.state,
        "stage": event.stage,
        "message": message,
        "hint": hint,
        "time": time,
    }


def filled_in(command: Sequence[str], document: Mapping[str, Any]) -> list[str]:
    """The words of a command for this event; the program itself is left as it is."""
    values = {name: document[name] or "" for name in FILLED_IN}
    return [command[0], *(word.format(**values) for word in command[1:])]


def variables_of(document: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables that a command gets besides its own."""
    return {f"HPCSFT_{name.upper()}": document[name] or "" for name in ("run_dir", "state", "stage", "message")}


def win_rates(report: Any) -> str | None:
    """The best and the last checkpoint's win rate, in one line, from report.json; None if it has none."""
    models = report.get("models") if isinstance(report, dict) else None
    rates = [
        (model["scores"]["win_rate"], model["name"])
        for model in models or ()
        if model.get("is_checkpoint") and (model.get("scores") or {}).get("win_rate") is not None
    ]
    if not rates:
        return None
    (best, best_name), (last, last_name) = max(rates), rates[-1]
    if best_name == last_name:
        return f"win rate {last:.2f} ({last_name}" + (", the best)" if len(rates) > 1 else ")")
    return f"win rate {last:.2f} ({last_name}), best {best:.2f} ({best_name})"


def _one_line(text: str) -> str:
    """Fit for a subject, an argument and an environment variable: no line breaks, no control characters."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= MESSAGE_LENGTH else line[: MESSAGE_LENGTH - 3] + "..."
