"""A person is told once, by whoever comes first, and by the monitor what no job could tell; no secret is kept."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from hpcsft.notify.announce import AGAIN_S, JOBS_TURN_S, Delivery, announce, deliver_pending
from hpcsft.notify.tries import CLAIM_S, MAX_TRIES, Tries
from hpcsft.plan import Plan
from hpcsft.records import BY_HAND, StageStatus, SubmittedStage, now, read_json, write_json
from hpcsft.rundir import RunDir
from tests.conftest import make_spec_values
from tests.evaluate.conftest import Endpoint
from tests.runs import finished_run, set_status

VARIABLE = "HPCSFT_TEST_HOOK"
SECRET = "/services/T0/x7x7x7"
NOTHING = Delivery()
PROGRAM = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("no_proxy", "*")
    with Endpoint() as server:
        server.answer = lambda request: (200, b"ok")
        monkeypatch.setenv(VARIABLE, server.address + SECRET)
        yield server


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """Where the command writes what it is given, one line per event."""
    return tmp_path / "told"


@pytest.fixture
def command(told: Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(told)]


def run_of(folder: Path, **notify: Any) -> RunDir:
    """A run of five stages that is done."""
    values = make_spec_values(Path("/models/tiny"), Path("/data/a.jsonl"), Path("/data/p.json"), folder / "runs")
    return finished_run({**values, "notify": notify or None})


def fail(run: RunDir, stage: str = "train", state: str = "failed", message: str = "the loss is NaN") -> None:
    set_status(run, Plan.model_validate(read_json(run.plan)), stage, 0, state, message)


def end(run: RunDir, ago_s: float) -> None:
    """Let the report, and with it the run, have ended so long ago."""
    updated = datetime.fromtimestamp(time.time() - ago_s, timezone.utc).isoformat(timespec="milliseconds")
    status = run.read_status("report", 0, 1)
    write_json(run.status_file("report", 0, 1), status.model_copy(update={"updated": updated}))


def documents(told: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []


def outcomes(run: RunDir) -> dict[str, bool | None]:
    return {path.name: read_json(path)["delivered"] for path in sorted(run.notified.glob("*"))}


def test_the_end_of_a_run_is_told_with_its_result(tmp_path, endpoint, command, told, capsys):
    run = run_of(tmp_path, command=command, webhook=f"${VARIABLE}")
    run.report.mkdir()
    models = [{"name": "epoch-1", "is_checkpoint": True, "scores": {"win_rate": 51.5}}]
    write_json(run.report / "report.json", {"models": models})
    announce(run)
    (document,) = documents(told)
    assert (document["name"], document["run_dir"], document["state"]) == ("tiny", str(run.path), "done")
    assert document["message"] == "win rate 51.50 (epoch-1)" and document["text"].startswith(
        "tiny: done: win rate 51.50"
    )
    assert [{**document, "path": SECRET, "key": None}] == endpoint.requests
    host = endpoint.address.removeprefix("http://")
    assert capsys.readouterr().out == f"hpcsft: notified: command {Path(sys.executable).name}, webhook {host}\n"
    assert outcomes(run) == {"done-5.json": True}


@pytest.mark.parametrize(("stage", "state"), [("train", "failed"), ("judge", "waiting")])
def test_what_failed_or_waits_is_told(tmp_path, command, told, stage, state):
    run = run_of(tmp_path, command=command)
    fail(run, stage, state)
    announce(run)
    (document,) = documents(told)
    assert (document["state"], document["stage"], document["message"]) == (state, stage, "the loss is NaN")
    assert deliver_pending(run, state, stage, "the loss is NaN") == NOTHING and len(documents(told)) == 1


def test_many_that_end_at_once_tell_once(tmp_path, command, told):
    run = run_of(tmp_path, command=command)
    fail(run)
    ready = threading.Barrier(8)

    def tell(how: Any, *words: str) -> None:
        ready.wait()
        how(run, *words)

    threads = [threading.Thread(target=tell, args=(announce,)) for _ in range(4)]
    threads += [threading.Thread(target=tell, args=(deliver_pending, "failed", "train", "NaN")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(documents(told)) == 1 and outcomes(run) == {"failed-5.json": True}


@pytest.mark.parametrize("why", ["nobody", "another event", "cancelled", "running", "never submitted"])
def test_nobody_is_told(tmp_path, command, told, why):
    notify = {"nobody": {}, "another event": {"command": command, "on": ["done", "waiting"]}}
    run = run_of(tmp_path, **notify.get(why, {"command": command}))
    fail(run, state="running" if why == "running" else "failed")
    if why == "cancelled":
        run.cancelled.touch()
    if why == "never submitted":
        run.submission.unlink()
    announce(run)
    state = "running" if why == "running" else "failed"
    assert deliver_pending(run, state, "train", "NaN") == NOTHING
    assert deliver_pending(run, "cancelled") == NOTHING
    assert documents(told) == [] and not run.notified.exists()


def test_a_run_that_was_resumed_tells_again(tmp_path, command, told):
    run = run_of(tmp_path, command=command)
    announce(run)
    submission = run.read_submission()
    again = SubmittedStage(stage="report", job_id="local-1", depends_on=[], tasks=1, submitted=now())
    run.write_submission(submission.model_copy(update={"jobs": [*submission.jobs, again]}))
    announce(run)
    announce(run)
    assert len(documents(told)) == 2 and outcomes(run) == {"done-5.json": True, "done-6.json": True}


def test_what_a_compute_node_could_not_deliver_is_delivered_from_the_login_node(
    tmp_path, endpoint, command, told, monkeypatch
):
    """And only that, the command has done its part; and at once, the job has had its turn."""
    run = run_of(tmp_path, command=command, webhook=f"${VARIABLE}")
    end(run, ago_s=0)
    with monkeypatch.context() as no_internet:
        no_internet.setenv(VARIABLE, f"http://127.0.0.1:1{SECRET}")
        announce(run)
    assert len(documents(told)) == 1 and outcomes(run) == {"done-5.json": False}
    assert read_json(run.notified / "done-5.json")["failures"] == {"webhook": "Connection refused"}
    host = endpoint.address.removeprefix("http://")
    assert deliver_pending(run, "done").line == f"notified: webhook {host}"
    assert len(documents(told)) == 1 and [request["state"] for request in endpoint.requests] == ["done"]
    assert deliver_pending(run, "done") == NOTHING
    assert outcomes(run) == {"done-5-2.json": True, "done-5.json": False}


def test_an_end_that_no_job_could_tell_is_told_by_who_sees_it(tmp_path, command, told):
    run = run_of(tmp_path, command=command)
    fail(run, state="running")
    hint = "python launch/resume.py RUN_DIR"
    delivery = deliver_pending(run, "failed", "train", "the job ended as NODE_FAIL", hint)
    assert delivery == Delivery(f"notified: command {Path(sys.executable).name}")
    (document,) = documents(told)
    assert (document["stage"], document["message"]) == ("train", "the job ended as NODE_FAIL")
    assert document["hint"] == f"python launch/resume.py {run.path}"


@pytest.mark.parametrize("mode", [None, 0o770], ids=["another user's", "one that others write into"])
def test_what_another_user_may_have_written_is_not_run_by_who_looks_at_it(tmp_path, command, told, monkeypatch, mode):
    """Not even where its owner lets everybody write that it was told."""
    run = run_of(tmp_path, command=command)
    fail(run)
    if mode:
        run.path.chmod(mode)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert deliver_pending(run, "failed", "train") == NOTHING
    assert documents(told) == [] and not run.notified.exists()


@pytest.mark.parametrize("text", ["", None], ids=["before it said what it tries", "after"])
def test_somebody_who_is_at_it_is_left_alone_unless_he_was_killed(tmp_path, endpoint, command, told, monkeypatch, text):
    run = run_of(tmp_path, command=command, webhook=f"${VARIABLE}")
    with monkeypatch.context() as killed:
        killed.setattr("hpcsft.notify.tries.Tries.close", lambda *_: None)
        announce(run)
    claim = run.notified / "done-5.json"
    if text is not None:
        claim.write_text(text)
    told.unlink()
    assert deliver_pending(run, "done") == Delivery(again_s=AGAIN_S) and documents(told) == []
    long_ago_s = time.time() - CLAIM_S - 5
    os.utime(claim, (long_ago_s, long_ago_s))
    assert deliver_pending(run, "done").line.startswith("notified: command")
    assert len(documents(told)) == 1


def test_a_variable_that_another_shell_knows_is_said_to_be_missing_and_nothing_is_lost(tmp_path, endpoint, monkeypatch):
    run = run_of(tmp_path, webhook=f"${VARIABLE}")
    with monkeypatch.context() as another_shell:
        another_shell.delenv(VARIABLE)
        assert deliver_pending(run, "done").line == f"could not notify: webhook: {VARIABLE} is not set"
        another_shell.setenv(VARIABLE, "nonsense")
        assert deliver_pending(run, "done").line == f"could not notify: webhook: {VARIABLE} holds no http(s) address"
        assert outcomes(run) == {}
        announce(run)
        assert outcomes(run) == {"done-5.json": False}
    assert deliver_pending(run, "done").line.startswith("notified: webhook 127.0.0.1:")


def test_jobs_have_their_turn_before_who_sees_the_end(tmp_path, endpoint, command, told, monkeypatch):
    """A monitor looks every second, and may lack the secret; a job needs seconds to come to its notification."""
    run = run_of(tmp_path, command=command, webhook=f"${VARIABLE}")
    end(run, ago_s=0)
    with monkeypatch.context() as another_shell:
        another_shell.delenv(VARIABLE)
        assert deliver_pending(run, "done") == Delivery(again_s=AGAIN_S) and not run.notified.exists()
    announce(run)
    assert deliver_pending(run, "done") == NOTHING
    assert len(documents(told)) == len(endpoint.requests) == 1 and outcomes(run) == {"done-5.json": True}


@pytest.mark.parametrize(
    ("ago_s", "early"),
    [(JOBS_TURN_S - 20, True), (-5, True), (JOBS_TURN_S + 1, False), (-3600, False)],
    ids=["their turn", "a clock that is ahead", "their turn is over", "a clock that is wrong"],
)
def test_the_turn_of_the_jobs_is_that_long_and_ends_whatever_their_clocks_say(tmp_path, command, told, ago_s, early):
    run = run_of(tmp_path, command=command)
    end(run, ago_s)
    delivery = deliver_pending(run, "done")
    assert (delivery.again_s is not None, len(documents(told))) == (early, 0 if early else 1)


def test_the_last_look_comes_when_the_turn_of_the_jobs_ends(tmp_path, command, monkeypatch):
    monkeypatch.setattr("hpcsft.notify.announce.AGAIN_S", JOBS_TURN_S)
    run = run_of(tmp_path, command=command)
    end(run, JOBS_TURN_S - 20)
    assert 0 < deliver_pending(run, "done").again_s <= 20


@pytest.mark.parametrize("who", ["a job", "another monitor"])
def test_a_way_that_lacks_something_here_is_left_to_who_has_it(tmp_path, endpoint, command, told, monkeypatch, who):
    run = run_of(tmp_path, command=command, webhook=f"${VARIABLE}")
    end(run, JOBS_TURN_S + 1)
    missing, name = f"could not notify: webhook: {VARIABLE} is not set", Path(sys.executable).name
    with monkeypatch.context() as another_shell:
        another_shell.delenv(VARIABLE)
        assert deliver_pending(run, "done") == Delivery(f"notified: command {name}; {missing}")
        assert deliver_pending(run, "done") == Delivery(missing)
    if who == "a job":
        announce(run)
    else:
        assert deliver_pending(run, "done").line.startswith("notified: webhook")
    announce(run)
    assert deliver_pending(run, "done") == NOTHING
    assert len(documents(told)) == len(endpoint.requests) == 1
    assert [read_json(path)["ways"] for path in sorted(run.notified.iterdir(), reverse=True)] == [
        ["command"],
        ["webhook"],
    ]


def test_a_job_tells_in_the_way_that_is_left_by_who_came_before_it_by_a_hair(
    tmp_path, endpoint, command, told, monkeypatch
):
    run = run_of(tmp_path, command=command, webhook=f"${VARIABLE}")
    claim = Tries.claim

    def slower(tries: Tries, number: int, ways: list[str]) -> bool:
        if number == 1:
            claim(tries, 1, ["command"])
        return claim(tries, number, ways)

    monkeypatch.setattr(Tries, "claim", slower)
    announce(run)
    assert documents(told) == [] and len(endpoint.requests) == 1


def test_a_program_that_is_not_here_is_left_to_where_it_is(tmp_path, endpoint):
    program = tmp_path / "mine"
    run = run_of(tmp_path, command=[str(program)], webhook=f"${VARIABLE}")
    host = endpoint.address.removeprefix("http://")
    missing = f"could not notify: command: there is no program {program} here"
    assert deliver_pending(run, "done") == Delivery(f"notified: webhook {host}; {missing}")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    assert deliver_pending(run, "done") == Delivery("notified: command mine")
    assert len(endpoint.requests) == 1


def test_a_way_that_never_works_takes_no_try_from_another(tmp_path, endpoint, monkeypatch):
    run = run_of(tmp_path, command=["false"], webhook=f"${VARIABLE}")
    with monkeypatch.context() as another_shell:
        another_shell.delenv(VARIABLE)
        lines = [deliver_pending(run, "done").line for _ in range(MAX_TRIES + 1)]
    missing = f"could not notify: webhook: {VARIABLE} is not set"
    assert lines == [f"could not notify: command false: exit status 1; {missing}"] * MAX_TRIES + [missing]
    assert deliver_pending(run, "done").line == f"notified: webhook {endpoint.address.removeprefix('http://')}"
    assert deliver_pending(run, "done") == NOTHING


def test_what_never_works_is_given_up(tmp_path, endpoint):
    run = run_of(tmp_path, webhook=f"${VARIABLE}")
    endpoint.answer = lambda request: (404, b"")
    announce(run)
    told = [deliver_pending(run, "done").line for _ in range(MAX_TRIES)]
    host = endpoint.address.removeprefix("http://")
    assert told == [f"could not notify: webhook {host}: it answered with 404"] * (MAX_TRIES - 1) + [None]
    assert len(endpoint.requests) == MAX_TRIES


def test_who_has_judged_by_hand_is_told_nothing(tmp_path, command, told):
    run = run_of(tmp_path, command=command)
    status = StageStatus(stage="report", index=0, state="done", attempt=1, job_id=f"{BY_HAND}7", updated=now())
    write_json(run.status_file("report", 0, 1), status)
    assert deliver_pending(run, "done") == NOTHING and documents(told) == []


def test_the_address_is_nowhere_but_in_the_spec(tmp_path, endpoint, capsys):
    """With a variable not even there."""
    endpoint.answer = lambda request: (500, request["path"].encode())
    for webhook, places in ((endpoint.address + SECRET, ["spec.json"]), (f"${VARIABLE}", [])):
        run = run_of(tmp_path / str(len(places)), webhook=webhook)
        announce(run)
        line = deliver_pending(run, "done").line
        assert len(outcomes(run)) == 2
        shown = capsys.readouterr()
        assert SECRET not in shown.out + shown.err + line
        found = [path for path in run.path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
        assert [path.name for path in found] == places


def test_whatever_is_wrong_nothing_is_raised(tmp_path, command, capsys):
    run = run_of(tmp_path, command=command)
    run.notified.write_text("a file where the folder should be")
    announce(run)
    assert capsys.readouterr().err == "hpcsft: could not notify: FileExistsError\n"
    assert deliver_pending(run, "done").line == "could not notify: File exists"
    run.spec.write_text("{")
    announce(run)
    assert capsys.readouterr().err == "hpcsft: could not notify: JSONDecodeError\n"
    assert deliver_pending(run, "done").line == "could not notify: JSONDecodeError"


def test_notifications_are_private(tmp_path, command):
    run = run_of(tmp_path, command=command)
    announce(run)
    modes = [path.stat().st_mode & 0o777 for path in (run.notified, run.notified / "done-5.json")]
    assert modes == [0o700, 0o600]
