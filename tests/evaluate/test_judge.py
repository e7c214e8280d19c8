"""Guards the money: a verdict that was given is never asked for again, whatever kills the stage, and the annotations
hold every verdict once.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcsft.errors import InputError, Stopped, Waiting
from hpcsft.evaluate.judge import judge
from hpcsft.evaluate.outputs import Answer, append_answers, journal
from hpcsft.evaluate.prompts import load_prompts
from hpcsft.records import read_json, read_jsonl, write_json
from hpcsft.rundir import RunDir
from tests.evaluate.conftest import reply
from tests.prepared import begun, context_of, new_run

ROOT = Path(__file__).resolve().parents[2]
NUM_PROMPTS = 30


@pytest.fixture
def run(spec_values, tmp_path, endpoint) -> RunDir:
    """A run whose base and epoch-1 have answered; the third answer of epoch-1 equals its reference."""
    prompts = [{"instruction": f"question {n}", "output": f"reference {n}"} for n in range(NUM_PROMPTS)]
    write_json(tmp_path / "prompts.json", prompts)
    spec_values["evaluate"].update(
        prompts=str(tmp_path / "prompts.json"),
        checkpoints=["base", "epoch-1"],
        checks={},
        judge={"model": "judge", "base_url": endpoint.base_url, "max_concurrency": 2},
    )
    run = new_run(spec_values)
    for checkpoint in ("base", "epoch-1"):
        (run.evaluate / checkpoint).mkdir(parents=True)
        rows = [
            Answer(row=row, instruction=p["instruction"], output=f"{checkpoint} {row}", finish="stop", num_tokens=2)
            for row, p in enumerate(prompts)
        ]
        if checkpoint == "epoch-1":
            rows[2] = rows[2].model_copy(update={"output": "reference 2"})
        append_answers(journal(run, checkpoint, 0), rows)
    return run


def asked(request: dict[str, Any]) -> str:
    """The two answers of a request, as they stood."""
    text = request["messages"][0]["content"]
    first, second = (text.split(f"Output ({letter}):\n")[1].split("\n\n")[0] for letter in "ab")
    return f"{first} | {second}"


ALL = {
    pair
    for checkpoint in ("base", "epoch-1")
    for row in range(NUM_PROMPTS)
    for pair in (f"reference {row} | {checkpoint} {row}", f"{checkpoint} {row} | reference {row}")
    if (checkpoint, row) != ("epoch-1", 2)
}


def prefers_the_model(request: dict[str, Any]) -> tuple[int, Any]:
    """A judge that knows the reference when it sees it."""
    return 200, reply("Output (b)" if asked(request).startswith("reference") else "Output (a)")


def test_every_pair_is_asked_once_and_annotated(run, endpoint):
    endpoint.answer = prefers_the_model
    judge(context_of(run, "judge"))
    assert sorted(map(asked, endpoint.requests)) == sorted(ALL)
    prompts = load_prompts(context_of(run, "judge").spec.evaluate.prompts)
    for checkpoint in ("base", "epoch-1"):
        rows = read_json(run.evaluate / checkpoint / "annotations.json")
        assert [row["instruction"] for row in rows] == [prompt.instruction for prompt in prompts]
        draws = {2} if checkpoint == "epoch-1" else set()
        assert [row["preference"] for row in rows] == [1.5 if n in draws else 2.0 for n in range(NUM_PROMPTS)]
        assert {len(row["orders"]) for n, row in enumerate(rows) if n not in draws} == {2}
        assert {(row["annotator"], row["generator_2"]) for row in rows} == {("openai/judge", f"tiny/{checkpoint}")}
        outputs = read_json(run.evaluate / checkpoint / "model_outputs.json")
        assert [row["output"] for row in outputs] == [row["output_2"] for row in rows]
    progress = run.read_status("judge", 0, 1).progress
    assert (progress.done, progress.total) == (len(ALL), len(ALL))


def test_a_second_run_asks_nothing(run, endpoint):
    judge(context_of(run, "judge"))
    before = (run.evaluate / "base" / "annotations.json").read_bytes()
    count = len(endpoint.requests)
    judge(context_of(run, "judge"))
    assert len(endpoint.requests) == count
    assert (run.evaluate / "base" / "annotations.json").read_bytes() == before


def journaled(run: RunDir) -> list[str]:
    return [row["key"] for name in ("base", "epoch-1") for row in read_jsonl(run.evaluate / name / "verdicts.jsonl")]


def test_a_killed_judge_does_not_ask_again_for_what_is_journaled(run, endpoint, monkeypatch):
    """SIGKILL from the server's side, in the middle of the second checkpoint, through the job as a user runs it."""
    started: list[subprocess.Popen[bytes]] = []

    def fatal(request: dict[str, Any]) -> tuple[int, Any]:
        if len(endpoint.requests) >= 90:
            deadline = time.monotonic() + 30
            while len(journaled(run)) <= len(ALL) // 2 + 2 and time.monotonic() < deadline:
                time.sleep(0.01)  # until the journal of the second checkpoint has begun
            started[0].send_signal(signal.SIGKILL)
        return prefers_the_model(request)

    endpoint.answer = fatal
    command = [sys.executable, str(ROOT / "jobs" / "judge.py"), str(run.path)]
    started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"))
    assert started[0].wait(timeout=60) == -signal.SIGKILL
    known = journaled(run)
    assert len(ALL) > len(known) > len(ALL) // 2 + 2
    assert run.read_status("judge", 0, 1).state == "running"
    endpoint.answer = prefers_the_model
    monkeypatch.setenv("OPENAI_API_KEY", "second")  # requests of the dead process may still arrive
    judge(begun(run, "judge"))
    again = [request for request in endpoint.requests if request["key"] == "Bearer second"]
    assert len(again) == len(ALL) - len(known)
    assert sorted(journaled(run)) == sorted(set(journaled(run))) and len(journaled(run)) == len(ALL)
    annotations = read_json(run.evaluate / "epoch-1" / "annotations.json")
    assert [row["preference"] for row in annotations] == [1.5 if n == 2 else 2.0 for n in range(NUM_PROMPTS)]


def test_a_judge_that_is_told_to_stop_keeps_every_verdict_and_asks_only_for_the_rest(run, endpoint):
    context = context_of(run, "judge")

    def long_enough(request: dict[str, Any]) -> tuple[int, Any]:
        if len(endpoint.requests) >= 20:
            context.notice.request("SIGTERM")
        return prefers_the_model(request)

    endpoint.answer = long_enough
    with pytest.raises(Stopped, match=rf"stopped by SIGTERM after \d+ of {len(ALL)} verdicts"):
        judge(context)
    known = journaled(run)
    assert 0 < len(known) < len(ALL)
    assert not (run.evaluate / "base" / "annotations.json").exists()
    before = len(endpoint.requests)
    judge(context_of(run, "judge"))
    assert len(endpoint.requests) - before == len(ALL) - len(known)
    assert journaled(run)[: len(known)] == known and len(set(journaled(run))) == len(journaled(run)) == len(ALL)
    annotations = read_json(run.evaluate / "epoch-1" / "annotations.json")
    assert [row["preference"] for row in annotations] == [1.5 if n == 2 else 2.0 for n in range(NUM_PROMPTS)]


def test_a_judge_that_fails_keeps_every_verdict_it_gave(run, endpoint):
    given = []

    def overloaded(request: dict[str, Any]) -> tuple[int, Any]:
        if " base 10 " in f" {asked(request)} ":
            return 401, {"error": {"message": "quota"}}
        given.append(request)
        return prefers_the_model(request)

    endpoint.answer = overloaded
    with pytest.raises(Waiting, match=r"the judge judge does not answer: .*quota"):
        judge(context_of(run, "judge"))
    known = len(journaled(run))
    assert known == len(given) >= 20, "what was given while the failure was noticed has been paid for as well"
    assert not (run.evaluate / "base" / "annotations.json").exists()
    before = len(endpoint.requests)
    endpoint.answer = prefers_the_model
    judge(context_of(run, "judge"))
    assert len(endpoint.requests) - before == len(ALL) - known


@pytest.mark.parametrize("shy_times", [1, 2, 3])
def test_a_reply_without_a_verdict_is_asked_for_again_but_not_for_ever(run, endpoint, shy_times):
    """max_unparsed is 3: over restarts too."""
    said: dict[str, int] = {}

    def shy(request: dict[str, Any]) -> tuple[int, Any]:
        pair = asked(request)
        said[pair] = said.get(pair, 0) + 1
        return (
            (200, reply("Hm.")) if "base 4 " in f"{pair} " and said[pair] <= shy_times else prefers_the_model(request)
        )

    endpoint.answer = shy
    judge(context_of(run, "judge"))
    row = read_json(run.evaluate / "base" / "annotations.json")[4]
    assert row["preference"] == (None if shy_times == 3 else 2.0)
    assert said["base 4 | reference 4"] == said["reference 4 | base 4"] == min(3, shy_times + 1)
    before = len(endpoint.requests)
    judge(context_of(run, "judge"))
    assert len(endpoint.requests) == before


def test_another_judge_or_another_answer_is_asked_about(run, endpoint):
    judge(context_of(run, "judge"))
    before = len(endpoint.requests)
    file = journal(run, "base", 0)
    changed = Answer(row=5, instruction="question 5", output="a new answer", finish="stop", num_tokens=1)
    append_answers(file, [changed])
    judge(context_of(run, "judge"))
    assert len(endpoint.requests) - before == 2
    spec = read_json(run.spec)
    spec["evaluate"]["judge"]["model"] = "another-judge"
    run.spec.write_text(json.dumps(spec))
    judge(context_of(run, "judge"))
    assert len(endpoint.requests) - before == 2 + len(ALL)


def test_the_same_answer_of_two_checkpoints_is_judged_once(run, endpoint):
    """Greedy answers often stay the same from one epoch to the next."""
    file = journal(run, "epoch-1", 0)
    append_answers(file, [Answer(row=5, instruction="question 5", output="base 5", finish="stop", num_tokens=1)])
    judge(context_of(run, "judge"))
    assert len(endpoint.requests) == len(ALL) - 2


def test_a_pair_that_is_refused_costs_that_pair_only(run, endpoint):
    """A content filter or a context that is too short answers 400, today and tomorrow."""

    def filtered(request: dict[str, Any]) -> tuple[int, Any]:
        refused = "base 4 " in asked(request) + " "
        return (400, {"error": {"message": "content filter"}}) if refused else prefers_the_model(request)

    endpoint.answer = filtered
    judge(context_of(run, "judge"))
    rows = read_json(run.evaluate / "base" / "annotations.json")
    assert [n for n, row in enumerate(rows) if row["preference"] is None] == [4]


def echoed(run: RunDir) -> None:
    """Half of epoch-1's answers repeat their prompts, which are long enough for that."""
    prompts = read_json(Path(read_json(run.spec)["evaluate"]["prompts"]))
    for prompt in prompts:
        prompt["instruction"] = f"This is the longer {prompt['instruction']}"
    write_json(Path(read_json(run.spec)["evaluate"]["prompts"]), prompts)
    for checkpoint in ("base", "epoch-1"):
        for row, prompt in enumerate(prompts):
            text = prompt["instruction"] if checkpoint == "epoch-1" and row % 2 else ""
            answer = Answer(
                row=row, instruction=prompt["instruction"], output=f"{text} {row}", finish="stop", num_tokens=2
            )
            append_answers(journal(run, checkpoint, 0), [answer])


def test_nobody_is_paid_for_answers_that_repeat_their_prompts_unless_it_is_forced(run, endpoint):
    echoed(run)
    with pytest.raises(
        Waiting, match=r"epoch-1: 15 of 30 answers repeat the prompt \(evaluate\.checks\.echo is 0\.2\)"
    ):
        judge(context_of(run, "judge"))
    assert not endpoint.requests
    checks = read_json(run.checks)
    assert (checks["epoch-1"]["echo"], checks["epoch-1"]["examples"]["echo"]) == (15, [1, 3, 5, 7, 9])
    assert checks["base"]["echo"] == 0
    judge(replace(context_of(run, "judge"), options=frozenset({"--force"})))
    assert endpoint.requests and (run.evaluate / "epoch-1" / "annotations.json").exists()


def test_another_limit_lets_them_pass(run, endpoint):
    echoed(run)
    spec = read_json(run.spec)
    spec["evaluate"]["checks"] = {"echo": 0.5}
    write_json(run.spec, spec)
    judge(context_of(run, "judge"))
    assert endpoint.requests


def test_other_models_are_judged_alike(run, endpoint, tmp_path):
    endpoint.answer = prefers_the_model
    rows = [{"instruction": f"question {n}", "output": f"falcon {n}"} for n in range(NUM_PROMPTS)]
    write_json(tmp_path / "falcon.json", rows[::-1])
    spec = read_json(run.spec)
    spec["evaluate"]["outputs"] = {"falcon-7b": str(tmp_path / "falcon.json")}
    write_json(run.spec, spec)
    judge(context_of(run, "judge"))
    annotations = read_json(run.evaluate / "falcon-7b" / "annotations.json")
    assert {row["preference"] for row in annotations} == {2.0}
    assert [row["output_2"] for row in annotations] == [row["output"] for row in rows]
    assert {row["generator_2"] for row in annotations} == {"falcon-7b"}
    assert len(read_json(run.evaluate / "falcon-7b" / "model_outputs.json")) == NUM_PROMPTS


def test_nobody_is_asked_before_all_answers_are_there(run, endpoint):
    file = journal(run, "epoch-1", 0)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="epoch-1: 1 of 30 answers are missing"):
        judge(context_of(run, "judge"))
    assert not endpoint.requests


@pytest.mark.parametrize("orders", ["random", "reference_first"])
def test_one_order_costs_half(run, endpoint, orders):
    spec = read_json(run.spec)
    spec["evaluate"]["judge"]["orders"] = orders
    run.spec.write_text(json.dumps(spec))
    judge(context_of(run, "judge"))
    assert len(endpoint.requests) == len(ALL) // 2
    rows = read_json(run.evaluate / "base" / "annotations.json")
    assert {len(row["orders"]) for row in rows} == {1}
