"""Guards what goes over the wire to Anthropic's messages API, through its own client."""

from __future__ import annotations

from typing import Any

import pytest

from hpcsft.errors import Waiting
from hpcsft.evaluate.judges import make_judge
from hpcsft.evaluate.verdicts import Usage
from hpcsft.spec.evaluate import JudgeSpec
from tests.evaluate.judges.ask import PAIR, judged, numbered

pytest.importorskip("anthropic")

CHATML = "<|im_start|>system\nBe fair.<|im_end|><|im_start|>user\n{instruction} {output_1} {output_2}<|im_end|>"


def message(text: str) -> dict[str, Any]:
    """A reply as the messages API writes it."""
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": text}],
        "usage": {"input_tokens": 11, "output_tokens": 4},
    }  # fmt: skip


def test_the_messages_api_is_spoken(endpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant")
    (tmp_path / "q.txt").write_text(CHATML)
    endpoint.answer = lambda request: (200, message("Output (b)"))
    (verdict,) = judged([PAIR], kind="anthropic", base_url=endpoint.address, template=str(tmp_path / "q.txt"))
    assert (verdict.first_better, verdict.raw, verdict.usage) == (0.0, "Output (b)", Usage(11, 4))
    (request,) = endpoint.requests
    assert (request["path"], request["model"]) == ("/v1/messages", "judge")
    assert request["key"].removeprefix("Bearer ") == "sk-ant"  # as a header of its own in earlier clients
    assert (request["max_tokens"], request["temperature"], request["system"]) == (50, 0, "Be fair.")
    assert request["messages"] == [{"role": "user", "content": "What is 1 + 1? It is {output_2}. 2"}]


def test_an_overloaded_server_is_asked_again(endpoint):
    busy = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    endpoint.answer = lambda request: (529, busy) if len(endpoint.requests) % 2 else (200, message("Output (a)"))
    found = judged(numbered(3), kind="anthropic", base_url=endpoint.address)
    assert [verdict.first_better for verdict in found] == [1.0] * 3
    assert len(endpoint.requests) == 6


def test_a_reply_without_text_is_no_verdict(endpoint):
    endpoint.answer = lambda request: (200, {**message(""), "content": []})
    assert judged([PAIR], kind="anthropic", base_url=endpoint.address)[0].first_better is None


def test_without_a_key_nobody_is_asked(endpoint):
    with pytest.raises(Waiting, match="the judge needs a key, but ANTHROPIC_API_KEY is not set"):
        make_judge(JudgeSpec(kind="anthropic", model="claude"))
