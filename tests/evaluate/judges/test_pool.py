"""Guards the way through trouble: what may be answered later is tried again, what never will be is not, everybody waits
when the server asks for it, and a judge that is not there is told from one that is slow.
"""

from __future__ import annotations

import email.utils
import threading
import time
from typing import Any

import pytest

from hpcsft.errors import Waiting
from hpcsft.evaluate.judges import make_judge, pool, standing
from hpcsft.evaluate.judges.cost import Budget
from hpcsft.evaluate.judges.failures import TryLater, retry_after_s
from hpcsft.evaluate.judges.pool import RequestPool
from hpcsft.evaluate.judges.settings import judge_settings
from hpcsft.evaluate.judges.standing import Standing
from hpcsft.evaluate.verdicts import Comparison, Verdict
from hpcsft.spec.evaluate import JudgeSpec
from tests.evaluate.conftest import reply
from tests.evaluate.judges.ask import PATIENT, judged, number_in, numbered, preferred

NO_HINT = {"retry-after-ms": None}
PAIRS = numbered(12)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A back-off is a matter of milliseconds here."""
    monkeypatch.setattr(pool, "FIRST_BACKOFF_S", 0.001)


def until_trouble(endpoint: Any, pairs: list[Comparison], **spec: Any) -> tuple[list[int], Waiting]:
    """(rows that were judged, what ended it)."""
    judge = make_judge(JudgeSpec(**{**PATIENT, "base_url": endpoint.base_url, **spec}))
    kept: list[tuple[Comparison, Verdict]] = []
    with pytest.raises(Waiting) as caught:
        list(judge.verdicts(pairs, kept.extend, Budget(judge.spec)))
    judge.close()
    assert "python jobs/judge.py RUN_DIR goes on" in caught.value.hint
    return sorted(pair.row for pair, _ in kept), caught.value


def broken(kind: str, request: dict[str, Any]) -> tuple[Any, ...]:
    """What a server may do instead of answering."""
    if kind == "timeout":
        time.sleep(0.4)
    return {
        "429": (429, {"error": {"message": "slow down"}}),
        "500": (500, b"<html>Bad gateway</html>", NO_HINT),
        "408": (408, {}),
        "timeout": (200, reply("Output (a)")),
        "cut": (200, b'{"choices": [', {"Content-Length": "1000"}),
        "half": (200, b'{"choices": [{"index": 0, "mess'),
        "page": (200, b"<html>Please log in</html>", {"Content-Type": "text/html"}),
        "empty": (200, {}),
        "no choice": (200, {"choices": []}),
        "number": (200, reply(None, message={"role": "assistant", "content": 7})),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["429", "500", "408", "timeout", "cut", "half", "page", "empty", "no choice", "number"]
)
def test_whatever_goes_wrong_once_is_tried_again(endpoint, kind):
    def first_time_wrong(request: dict[str, Any]) -> tuple[Any, ...]:
        seen = sum(number_in(other) == number_in(request) for other in endpoint.requests)
        return broken(kind, request) if seen == 1 else (200, reply(f"Output ({'ab'[number_in(request) % 2]})"))

    endpoint.answer = first_time_wrong
    found = preferred(numbered(4), base_url=endpoint.base_url, max_concurrency=4, timeout_s=0.2)
    assert found == [1.0, 0.0] * 2
    assert len(endpoint.requests) == 8


def test_a_question_that_was_given_up_costs_that_question_only(endpoint):
    """There is a server, and it answers others."""
    bad = {3: (500, {}), 5: (200, {"choices": []}), 8: (403, {"error": {"message": "flagged"}})}
    endpoint.answer = lambda request: bad.get(number_in(request), (200, reply("Output (a)")))
    found = judged(PAIRS, base_url=endpoint.base_url, max_tries=2)
    assert [row for row, verdict in enumerate(found) if verdict.given_up] == [3, 5, 8]
    assert found[8].first_better is None and "flagged" in found[8].raw
    assert len(endpoint.requests) == 9 + 2 + 2 + 1


def test_a_server_that_dies_is_no_matter_of_the_questions(endpoint):
    endpoint.answer = lambda request: (500, {}) if number_in(request) > 2 else (200, reply("Output (a)"))
    rows, error = until_trouble(endpoint, numbered(30), max_tries=1)
    assert "does not answer: " in error.message
    assert len(endpoint.requests) == 3 + standing.FAILURES_IN_A_ROW == len(rows)


def test_one_that_is_barred_in_a_row_with_others_is_a_closed_judge(endpoint):
    endpoint.answer = lambda request: (403, {}) if number_in(request) > 2 else (200, reply("Output (a)"))
    _, error = until_trouble(endpoint, numbered(30))
    assert "OPENAI_API_KEY is not set" in error.message
    assert len(endpoint.requests) == 3 + standing.FAILURES_IN_A_ROW


def test_replies_that_never_hold_a_verdict_end_it(endpoint):
    endpoint.answer = lambda request: (200, reply("<think> Let me see" + "." * 300))
    rows, error = until_trouble(endpoint, numbered(30))
    assert len(rows) == len(endpoint.requests) == standing.REPLIES_WITHOUT_VERDICT
    assert "gives no verdict in its replies, such as '<think> Let me see" in error.message
    assert len(error.message) < 400 and "max_tokens" in error.hint and "template" in error.hint


def test_one_verdict_shows_that_replies_can_be_read(endpoint):
    endpoint.answer = lambda request: (200, reply("Hm." if number_in(request) != 19 else "Output (a)"))
    assert sum(value is None for value in preferred(numbered(40), base_url=endpoint.base_url)) == 39


def test_a_question_that_was_given_up_is_asked_again_if_nobody_was_answered(endpoint):
    def late(request: dict[str, Any]) -> tuple[int, Any]:
        tries = sum(number_in(other) == 0 for other in endpoint.requests)
        return (503, {}) if number_in(request) == 0 and tries <= 2 else (200, reply("Output (a)"))

    endpoint.answer = late
    assert preferred(numbered(3), base_url=endpoint.base_url, max_tries=2) == [1.0] * 3
    assert [number_in(request) for request in endpoint.requests] == [0, 0, 1, 2, 0]


def test_a_server_that_does_not_recover_is_given_up(endpoint):
    endpoint.answer = lambda request: (500, {"error": {"message": "no such luck"}})
    rows, error = until_trouble(endpoint, PAIRS, max_tries=3)
    assert rows == [] and len(endpoint.requests) == 3 * standing.FAILURES_IN_A_ROW
    assert error.message.startswith("the judge judge does not answer: ")
    assert error.message.endswith(f"no such luck (at {endpoint.base_url})") and "500" in error.message


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"error": {"message": "Incorrect API key"}}),
        (402, {"error": {"message": "Pay first"}}),
        (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
    ],
)
def test_what_no_further_request_can_cure_ends_it_at_once(endpoint, status, body):
    endpoint.answer = lambda request: (status, body) if number_in(request) == 3 else (200, reply("Output (a)"))
    rows, error = until_trouble(endpoint, PAIRS)
    assert rows == [0, 1, 2] and len(endpoint.requests) == 4
    assert "does not answer: " in error.message and body["error"]["message"] in error.message


@pytest.mark.parametrize(
    ("status", "key", "told"),
    [
        (401, None, "does not answer: OPENAI_API_KEY is not set"),
        (401, "sk", "does not answer: it refuses the key in OPENAI_API_KEY"),
        (403, "sk", "does not answer: it refuses the key in OPENAI_API_KEY"),
        (404, "sk", "does not answer: Error code: 404"),
    ],
)
def test_who_bars_the_first_question_bars_all(endpoint, monkeypatch, status, key, told):
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    endpoint.answer = lambda request: (status, {"error": {"message": "no"}})
    rows, error = until_trouble(endpoint, PAIRS)
    assert rows == [] and len(endpoint.requests) == 1 and told in error.message
    assert ("export OPENAI_API_KEY=..." in error.hint) == (status != 404)


def test_a_key_from_a_file_that_is_refused_is_told_by_its_file(endpoint, tmp_path):
    file = tmp_path / "judge.key"
    file.write_text("sk-from-a-file")
    file.chmod(0o600)
    endpoint.answer = lambda request: (401, {"error": {"message": "no sk-from-a-file"}})
    _, error = until_trouble(endpoint, PAIRS, api_key_file=str(file))
    assert f"it refuses the key in {file}: " in error.message and f"chmod 600 {file}" in error.hint
    assert "sk-from" not in error.message


def test_what_is_under_way_at_the_end_is_kept(endpoint):
    """It has been paid for."""
    together = threading.Barrier(4)

    def one_fails(request: dict[str, Any]) -> tuple[int, Any]:
        together.wait(10)
        if number_in(request) == 2:
            return 401, {}
        time.sleep(0.3)
        return 200, reply("Output (a)")

    endpoint.answer = one_fails
    assert until_trouble(endpoint, PAIRS, max_concurrency=4)[0] == [0, 1, 3]
    assert len(endpoint.requests) == 4


def test_a_question_that_is_refused_costs_that_question_only(endpoint):
    refusals = {4: (400, "content filter"), 7: (413, "too long"), 8: (422, "no")}
    endpoint.answer = lambda request: (
        (refusals[number_in(request)][0], {"error": {"message": refusals[number_in(request)][1]}})
        if number_in(request) in refusals
        else (200, reply("Output (a)"))
    )
    found = judged(PAIRS, base_url=endpoint.base_url)
    assert [row for row, verdict in enumerate(found) if verdict.refused] == [4, 7, 8]
    assert found[4].first_better is None and "content filter" in found[4].raw
    assert len(endpoint.requests) == 12


def test_a_server_that_refuses_everything_is_no_matter_of_the_question(endpoint):
    endpoint.answer = lambda request: (400, {"error": {"message": "context length is 8 tokens"}})
    rows, error = until_trouble(endpoint, numbered(30))
    assert len(rows) == len(endpoint.requests) == standing.REFUSALS_IN_A_ROW
    assert "refuses every question: " in error.message and "context length is 8 tokens" in error.message


def test_refusals_after_an_answer_are_matters_of_the_questions(endpoint):
    endpoint.answer = lambda request: (400, {}) if number_in(request) else (200, reply("Output (a)"))
    found = judged(numbered(30), base_url=endpoint.base_url)
    assert sum(verdict.refused and not verdict.given_up for verdict in found) == 29


def test_nobody_at_the_address_is_found_out_soon(endpoint, monkeypatch):
    """The address is named wherever it came from, but for a password."""
    monkeypatch.setattr(pool, "NO_NETWORK_S", 0.2)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:secret@127.0.0.1:9/v1")
    endpoint.base_url = None
    rows, error = until_trouble(endpoint, PAIRS, max_tries=1000)
    assert rows == [] and "judge does not answer: Connection error: " in error.message
    assert error.message.endswith("(at http://127.0.0.1:9/v1)") and "from a machine with internet" in error.hint


def test_a_server_that_goes_away_for_a_moment_is_waited_for(monkeypatch):
    """Once somebody was there, a refused connection is a fault like others."""
    monkeypatch.setattr(pool, "NO_NETWORK_S", 0.0)
    replies = iter([Verdict(1.0, "first"), TryLater("Connection refused", connected=False), Verdict(1.0, "second")])

    def ask(pair: Comparison) -> Verdict:
        found = next(replies)
        if isinstance(found, TryLater):
            raise found
        return found

    spec, kept = JudgeSpec(**PATIENT), []
    for _ in RequestPool(ask, judge_settings(spec), spec, numbered(2), kept.extend, Budget(spec), Standing()):
        pass
    assert [verdict.raw for _, verdict in kept] == ["first", "second"]


def test_everybody_waits_when_the_server_asks_for_it(endpoint):
    refused_at: list[float] = []
    calm: list[float] = []

    def busy_once(request: dict[str, Any]) -> tuple[Any, ...]:
        if number_in(request) == 3 and not refused_at:
            refused_at.append(time.monotonic())
            return 429, {}, {"retry-after-ms": None, "Retry-After": "1"}
        if refused_at:
            calm.append(time.monotonic() - refused_at[0])
        time.sleep(0.05)
        return 200, reply("Output (a)")

    endpoint.answer = busy_once
    assert preferred(numbered(10), base_url=endpoint.base_url, max_concurrency=2) == [1.0] * 10
    assert sum(after < 0.9 for after in calm) <= 2, "but for what the other thread was about to send"
    assert max(calm) < 5


def test_a_server_that_closes_for_today_is_not_waited_for(endpoint):
    endpoint.answer = lambda request: (429, {}, {"retry-after-ms": None, "Retry-After": "7200"})
    _, error = until_trouble(endpoint, PAIRS)
    assert "asks to come back in 120 minutes" in error.message and len(endpoint.requests) == 1


def test_the_ways_to_ask_for_a_pause():
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after_s({"retry-after": "9"}) == 9
    assert retry_after_s({"retry-after": "-3"}) == 0
    later = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 27 < retry_after_s({"retry-after": later}) <= 30
    assert retry_after_s({"retry-after": email.utils.formatdate(0)}) == 0
    for text in ("", "soon", "inf", "nan", "32 Xyz"):
        assert retry_after_s({"retry-after": text}) is None
    assert retry_after_s({}) is None


def test_the_caller_gets_to_look_around_while_nothing_happens(endpoint):
    release = threading.Event()
    endpoint.answer = lambda request: (200, reply("Output (a)")) if release.wait(30) else (500, {})
    judge = make_judge(JudgeSpec(**PATIENT, base_url=endpoint.base_url))
    looks = judge.verdicts(PAIRS[:1], lambda given: None, Budget(judge.spec))
    begun = time.monotonic()
    for _ in range(3):
        next(looks)
    assert time.monotonic() - begun < 10
    release.set()
    assert list(looks)
    judge.close()


def test_leaving_early_keeps_what_is_nearly_there_and_waits_for_nothing_else(endpoint, monkeypatch):
    monkeypatch.setattr(pool, "CLOSING_S", 0.5)
    release = threading.Event()

    def slow(request: dict[str, Any]) -> tuple[Any, ...]:
        if number_in(request) == 0:
            release.wait(30)  # longer than anybody's patience
        elif number_in(request) == 1:
            time.sleep(0.3)
        else:
            return 503, {}, {"retry-after-ms": None, "Retry-After": "500"}  # whoever asked waits
        return 200, reply("Output (a)")

    endpoint.answer = slow
    judge = make_judge(JudgeSpec(**{**PATIENT, "max_concurrency": 3}, base_url=endpoint.base_url))
    kept: list[tuple[Comparison, Verdict]] = []
    looks = judge.verdicts(PAIRS, kept.extend, Budget(judge.spec))
    next(looks)
    while len(endpoint.requests) < 3:
        next(looks)
    begun = time.monotonic()
    looks.close()
    assert time.monotonic() - begun < 3
    assert [pair.row for pair, _ in kept] == [1]
    release.set()
    for thread in [thread for thread in threading.enumerate() if thread.name == "judge"]:
        thread.join(10)
    assert [pair.row for pair, _ in kept] == [1], "nothing is written by whoever comes too late"
    assert len(endpoint.requests) == 3
    judge.close()


def test_what_fails_in_keeping_is_not_swallowed(endpoint):
    judge = make_judge(JudgeSpec(**PATIENT, base_url=endpoint.base_url))

    def full(given: Any) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        list(judge.verdicts(PAIRS, full, Budget(judge.spec)))
    assert len(endpoint.requests) == 1
    judge.close()
