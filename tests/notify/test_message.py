"""The words of a notification: fit for Slack, for Discord, for the subject of a mail, whatever stood in a log."""

from __future__ import annotations

import pytest

from hpcsft.notify.event import Event
from hpcsft.notify.message import document_of, filled_in, variables_of, win_rates

NAUGHTY = Event("failed", "train", "first\nSubject: other\0 <!channel> & {name} \ud800", "make room, then RUN_DIR")


def document(event: Event, result: str | None = None) -> dict[str, object]:
    return document_of("llama", "/runs/llama-1a2b3c4d", event, result, "2026-01-01T00:00:00.000+00:00")


@pytest.mark.parametrize(
    ("event", "result", "text"),
    [
        (Event("done"), "win rate 50.28 (epoch-2)", "llama: done: win rate 50.28 (epoch-2)\n/runs/llama-1a2b3c4d"),
        (Event("done"), None, "llama: done\n/runs/llama-1a2b3c4d"),
        (Event("failed", "train", "NaN", "lower it"), None, "llama: train failed: NaN\nlower it\n/runs/llama-1a2b3c4d"),
        (
            Event("waiting", "judge", "no key", "export KEY=...; python jobs/judge.py RUN_DIR"),
            None,
            "llama: judge waits for you: no key\nexport KEY=...; python jobs/judge.py /runs/llama-1a2b3c4d",
        ),
    ],
)
def test_the_text_tells_what_happened_and_where(event, result, text):
    told = document(event, result)
    assert told["text"] == told["content"] == text


def test_all_facts_are_told():
    assert {key: value for key, value in document(NAUGHTY).items() if key not in ("text", "content")} == {
        "name": "llama",
        "run_dir": "/runs/llama-1a2b3c4d",
        "state": "failed",
        "stage": "train",
        "message": "first Subject: other <!channel> & {name}",
        "hint": "make room, then /runs/llama-1a2b3c4d",
        "time": "2026-01-01T00:00:00.000+00:00",
    }


def test_a_message_pages_nobody_in_slack():
    assert "&lt;!channel&gt; &amp; {name}" in document(NAUGHTY)["text"]
    assert "<!channel> & {name}" in document(NAUGHTY)["content"]


def test_a_long_message_is_cut_to_what_discord_takes():
    told = document(Event("failed", "train", "x" * 5000, "y" * 5000))
    assert len(told["content"]) <= 2000 and len(told["message"]) == 1000 and told["message"].endswith("x...")


def test_the_words_of_a_command_are_filled_in_once():
    """What a message has in braces stays as it is, and a word stays one word."""
    words = ["{name}", "{name}: {stage} {state} {{x}}", "{message}", "{run_dir}"]
    assert filled_in(words, document(NAUGHTY)) == [
        "{name}",
        "llama: train failed {x}",
        "first Subject: other <!channel> & {name}",
        "/runs/llama-1a2b3c4d",
    ]
    assert filled_in(["a", "[{stage}]"], document(Event("done"))) == ["a", "[]"]


def test_the_environment_of_a_command():
    assert variables_of(document(Event("done"), "win rate 1.00 (base)")) == {
        "HPCSFT_RUN_DIR": "/runs/llama-1a2b3c4d",
        "HPCSFT_STATE": "done",
        "HPCSFT_STAGE": "",
        "HPCSFT_MESSAGE": "win rate 1.00 (base)",
    }


def report(*rates: float | None, other: float = 99.0) -> dict[str, object]:
    models = [
        {"name": f"epoch-{number}", "is_checkpoint": True, "scores": None if rate is None else {"win_rate": rate}}
        for number, rate in enumerate(rates)
    ]
    return {"models": [*models, {"name": "falcon", "is_checkpoint": False, "scores": {"win_rate": other}}]}


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (report(51.164, 50.15, 50.283), "win rate 50.28 (epoch-2), best 51.16 (epoch-0)"),
        (report(48.0, 50.0), "win rate 50.00 (epoch-1, the best)"),
        (report(50.0), "win rate 50.00 (epoch-0)"),
        (report(51.0, None), "win rate 51.00 (epoch-0)"),
        (report(None), None),
        ({"models": []}, None),
        ({}, None),
        ([], None),
    ],
)
def test_the_result_of_a_run_in_one_line(document, text):
    assert win_rates(document) == text
