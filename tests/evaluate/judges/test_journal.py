"""Guards that no reply is paid for twice: each is on disk before the next one is looked at, and what is there is never
asked for again, while failures leave nothing that could be taken for a verdict.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from hpcsft.errors import Waiting
from hpcsft.evaluate.judges import judge_identity, make_judge, pool
from hpcsft.evaluate.judges.journal import VerdictJournal
from hpcsft.evaluate.verdicts import Comparison
from hpcsft.records import append_jsonl, read_jsonl
from hpcsft.spec.evaluate import JudgeSpec
from tests.evaluate.conftest import Endpoint, reply
from tests.evaluate.judges.ask import PATIENT, number_in, numbered


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "FIRST_BACKOFF_S", 0.001)


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("base", "epoch-1"):
        (tmp_path / name).mkdir()
    return tmp_path


def completed(folder: Path, endpoint: Endpoint, pairs: list[Comparison], name: str = "base", **spec: Any):
    """A journal of checkpoint `name`, completed by a judge of its own as a new process would make it."""
    judge = make_judge(JudgeSpec(**{**PATIENT, **spec}, base_url=endpoint.base_url))
    journal = VerdictJournal(folder / name / "verdicts.jsonl", judge, judge_identity(judge.spec))
    try:
        counts = list(journal.complete(pairs))
    finally:
        judge.close()
    assert counts == sorted(counts) and counts[-1] == len(pairs)
    return journal


def of(journal: VerdictJournal, pairs: list[Comparison]) -> list[float | None]:
    return [journal.known[pair.key(journal.identity)].first_better for pair in pairs]


def test_a_line_tells_all_about_a_reply(folder, endpoint):
    endpoint.answer = lambda request: (200, reply("Output (b)", (70, 5)))
    pair = numbered(1)[0]._replace(row=7, model_first=True)
    journal = completed(folder, endpoint, [pair], price={"input": 1, "output": 2})
    digest = sha256(journal.identity.encode()).hexdigest()[:16]
    assert list(read_jsonl(journal.path)) == [
        {
            "key": pair.key(journal.identity), "row": 7, "model_first": True, "first_better": 0.0, "raw": "Output (b)",
            "refused": False, "usage": {"input_tokens": 70, "output_tokens": 5}, "usd": pytest.approx(80e-6),
            "given_up": False, "address": endpoint.base_url, "judge": digest,
        }
    ]  # fmt: skip


def test_what_is_there_is_not_asked_for_again(folder, endpoint):
    endpoint.answer = lambda request: (200, reply(f"Output ({'ab'[number_in(request) % 2]})"))
    pairs = numbered(6)
    completed(folder, endpoint, pairs[:4])
    assert len(endpoint.requests) == 4
    journal = completed(folder, endpoint, pairs, max_concurrency=8, max_tries=1, timeout_s=9)
    assert [number_in(request) for request in endpoint.requests[4:]] in ([4, 5], [5, 4])
    assert of(journal, pairs) == [1.0, 0.0] * 3
    other = completed(folder, endpoint, pairs, name="epoch-1")  # which has given the same answers
    assert of(other, pairs) == [1.0, 0.0] * 3 and len(endpoint.requests) == 6
    completed(folder, endpoint, pairs, temperature=0.7)
    assert len(endpoint.requests) == 12


def test_lines_of_an_earlier_version_count(folder, endpoint):
    pairs = numbered(2)
    identity = judge_identity(JudgeSpec(**PATIENT, base_url=endpoint.base_url))
    old = {"key": pairs[0].key(identity), "row": 0, "model_first": False, "first_better": 0.0, "raw": "Output (b)"}
    append_jsonl(folder / "base" / "verdicts.jsonl", old)
    with open(folder / "base" / "verdicts.jsonl", "a") as file:
        file.write('{"key": "torn')
    assert of(completed(folder, endpoint, pairs), pairs) == [0.0, 1.0]
    assert len(endpoint.requests) == 1


def test_a_reply_without_a_verdict_is_asked_for_again_and_counted(folder, endpoint):
    def shy(request: dict[str, Any]) -> tuple[int, Any]:
        seen = sum(number_in(other) == number_in(request) for other in endpoint.requests)
        return 200, reply("Hm." if number_in(request) == 1 or seen <= number_in(request) else "Output (a)")

    endpoint.answer = shy
    pairs = numbered(3)
    journal = completed(folder, endpoint, pairs)
    assert of(journal, pairs) == [1.0, None, 1.0]
    assert sorted(number_in(request) for request in endpoint.requests) == [0, 1, 1, 1, 2, 2, 2]
    assert [row["first_better"] for row in read_jsonl(journal.path) if row["row"] == 2] == [None, None, 1.0]
    again = completed(folder, endpoint, pairs)
    assert len(endpoint.requests) == 7, "three times in all, not three times a run"
    assert of(again, pairs) == [1.0, None, 1.0]
    assert again.known[pairs[1].key(again.identity)].raw == "Hm."


def test_attempts_of_an_earlier_run_count(folder, endpoint):
    endpoint.answer = lambda request: (200, reply("Hm."))
    pairs = numbered(1)
    completed(folder, endpoint, pairs, max_unparsed=1)
    assert len(endpoint.requests) == 1
    completed(folder, endpoint, pairs, max_unparsed=3)
    assert len(endpoint.requests) == 3


def test_a_question_that_is_refused_is_not_asked_again(folder, endpoint):
    endpoint.answer = lambda request: (400, {}) if number_in(request) == 1 else (200, reply("Output (a)"))
    pairs = numbered(3)
    for _ in range(3):
        journal = completed(folder, endpoint, pairs)
        assert of(journal, pairs) == [1.0, None, 1.0] and len(endpoint.requests) == 3
    assert [row["refused"] for row in read_jsonl(journal.path) if row["row"] == 1] == [True]


def test_neighbours_that_are_refused_end_no_run(endpoint, folder):
    """Nobody was answered before them: the next run begins with others, and learns that the judge is well."""
    endpoint.answer = lambda request: (400, {}) if number_in(request) < 12 else (200, reply("Output (a)"))
    pairs = numbered(30)
    with pytest.raises(Waiting, match="refuses every question"):
        completed(folder, endpoint, pairs)
    for _ in range(2):
        assert of(completed(folder, endpoint, pairs), pairs) == [None] * 12 + [1.0] * 18
        assert len(endpoint.requests) == 10 + 30 + 2, "who was refused before anybody was answered, once more"


@pytest.mark.parametrize("trouble", [(500, {}), (200, {"choices": []}), (403, {})])
def test_questions_that_always_fail_end_no_run(folder, endpoint, trouble):
    endpoint.answer = lambda request: trouble if number_in(request) % 4 == 1 else (200, reply("Output (a)"))
    pairs = numbered(28)
    for _ in range(2):
        journal = completed(folder, endpoint, pairs, max_tries=1)
        assert of(journal, pairs) == [None if row % 4 == 1 else 1.0 for row in range(28)]
        assert len(endpoint.requests) == 21 + 3 * 7, "three times in all"


def test_single_failures_are_no_reason_to_give_up(folder, endpoint):
    def every_other(request: dict[str, Any]) -> tuple[int, Any]:
        first = sum(number_in(other) == number_in(request) for other in endpoint.requests) == 1
        return (503, {}) if first and number_in(request) % 2 else (200, reply("Output (a)"))

    endpoint.answer = every_other
    assert of(completed(folder, endpoint, numbered(12), max_tries=1), numbered(12)) == [1.0] * 12


def test_a_question_that_fails_alone_in_a_later_run_does_not_stop_it(folder, endpoint):
    pairs = numbered(4)
    completed(folder, endpoint, pairs[:3])
    endpoint.answer = lambda request: (500, {})
    assert of(completed(folder, endpoint, pairs, max_tries=1), pairs) == [1.0, 1.0, 1.0, None]


def test_a_verdict_is_not_undone_by_a_reply_without_one(folder, endpoint):
    pair = numbered(1)[0]
    key = pair.key(judge_identity(JudgeSpec(**PATIENT, base_url=endpoint.base_url)))
    for name, first_better in (("base", 0.0), ("epoch-1", None)):
        row = {"key": key, "row": 0, "model_first": False, "first_better": first_better, "raw": "said"}
        append_jsonl(folder / name / "verdicts.jsonl", row)
    assert of(completed(folder, endpoint, [pair]), [pair]) == [0.0] and not endpoint.requests


def test_failures_leave_no_line(folder, endpoint):
    endpoint.answer = lambda request: (401, {}) if number_in(request) == 2 else (200, reply("Output (a)"))
    with pytest.raises(Waiting):
        completed(folder, endpoint, numbered(5))
    assert [row["row"] for row in read_jsonl(folder / "base" / "verdicts.jsonl")] == [0, 1]
    endpoint.answer = lambda request: (200, reply("Output (b)"))
    assert of(completed(folder, endpoint, numbered(5)), numbered(5)) == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_a_caller_that_leaves_keeps_every_reply(folder, endpoint):
    judge = make_judge(JudgeSpec(**PATIENT, base_url=endpoint.base_url))
    journal = VerdictJournal(folder / "base" / "verdicts.jsonl", judge, judge_identity(judge.spec))
    counts = journal.complete(numbered(50))
    while next(counts) < 5:
        pass
    counts.close()
    judge.close()
    assert 5 <= len(list(read_jsonl(journal.path))) == len(endpoint.requests) < 50


def test_what_was_spent_counts_over_restarts_and_checkpoints_once(folder, endpoint):
    """Every reply here costs 1 cent, and the cap is 10; the estimate of a question is far below a cent."""
    endpoint.answer = lambda request: (200, reply("Output (a)", (1000, 0)))
    spec = {"price": {"input": 10, "output": 0}, "max_cost_usd": 0.1}
    completed(folder, endpoint, numbered(4), **spec)
    assert completed(folder, endpoint, numbered(4), **spec).budget.spent_usd == pytest.approx(0.04)
    other = completed(folder, endpoint, numbered(7), name="epoch-1", **spec)
    assert other.budget.spent_usd == pytest.approx(0.07)
    with pytest.raises(Waiting, match=r"judging stopped at 0\.10 US dollars"):
        completed(folder, endpoint, numbered(15), **spec)
    assert len(endpoint.requests) == 10
    with pytest.raises(Waiting, match=r"may cost 0.01 US dollars, and 0.10 are spent"):
        completed(folder, endpoint, numbered(15), **spec)
    assert len(endpoint.requests) == 10


def test_above_the_cap_nobody_is_asked(folder, endpoint):
    spec = {"price": {"input": 1000, "output": 0}, "max_cost_usd": 0.5}
    with pytest.raises(Waiting, match=r"40 questions to the judge may cost \d\.\d\d US dollars; .*is 0\.50"):
        completed(folder, endpoint, numbered(40), **spec)
    assert not endpoint.requests


def test_the_journal_is_json_of_one_reply_a_line(folder, endpoint):
    endpoint.answer = lambda request: (200, reply("Output (a)\n好"))
    path = completed(folder, endpoint, numbered(3), max_concurrency=3).path
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["raw"] for line in lines] == ["Output (a)\n好"] * 3
