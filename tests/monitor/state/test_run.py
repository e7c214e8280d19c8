"""Guards the one word that people and scripts act on: a job that Slurm still holds is never called failed, one that is
gone is never called running, and the message is that of the cause.
"""

from __future__ import annotations

import itertools
import json
from datetime import datetime, timezone

import pytest

from hpcsft.monitor.state.run import EXIT_CODE, exit_code, run_state
from hpcsft.plan import make_plan
from hpcsft.records import StageStatus, SubmittedStage
from hpcsft.slurm_queue import QueueEntry
from hpcsft.spec import parse_spec
from tests.monitor.situations import IDS, PLAN, VALUES, facts, progress, queued, said, stage_of, state_of

KILLED = "killed from outside, out of memory, over its time limit or on a failed node"


def done(*stages: str) -> list:
    return [said(stage, "done", index=index) for stage in stages for index in range(PLAN.stage(stage).tasks)]


SLURM = {
    "waiting": (
        [queued("train", "PENDING", reason="Priority")],
        "pending",
        "waiting: other jobs come first (Priority)",
    ),
    "waiting, no reason yet": ([queued("train", "PENDING")], "pending", None),
    "starting": ([queued("train", "CONFIGURING")], "running", None),
    "running, not yet said so": ([queued("train", "RUNNING")], "running", None),
    "running": ([queued("train", "RUNNING"), said("train", "running")], "running", None),
    "done, still in the queue": ([queued("train", "COMPLETING"), said("train", "done")], "done", None),
    "done, gone from the queue": ([said("train", "done")], "done", None),
    "done, whatever Slurm calls it": ([queued("train", "FAILED"), said("train", "done")], "done", None),
    "failed with a message": (
        [queued("train", "FAILED"), said("train", "failed", message="the loss is nan")],
        "failed",
        "the loss is nan",
    ),
    "failed, gone from the queue": ([said("train", "failed", message="the loss is nan")], "failed", "the loss is nan"),
    "preempted for good": (
        [queued("train", "PREEMPTED"), said("train", "running")],
        "failed",
        f"the job ended as PREEMPTED: {KILLED}",
    ),
    "requeued, waits for its turn": (
        [queued("train", "PENDING", reason="BeginTime"), said("train", "running")],
        "pending",
        "waiting: not eligible yet: after a requeue Slurm holds a job for up to two minutes (BeginTime)",
    ),
    "requeued after it said it failed": (
        [queued("train", "PENDING", reason="BeginTime"), said("train", "failed", message="SIGTERM")],
        "pending",
        "waiting: not eligible yet: after a requeue Slurm holds a job for up to two minutes (BeginTime)",
    ),
    "back after it said it failed": (
        [queued("train", "RUNNING"), said("train", "failed", message="SIGTERM")],
        "running",
        None,
    ),
    "requeueing": ([queued("train", "REQUEUED"), said("train", "running")], "pending", None),
    "stopped, its script decides": (
        [queued("train", "RUNNING"), said("train", "stopped", message="preempted")],
        "running",
        None,
    ),
    "stopped, its job ends": (
        [queued("train", "COMPLETING"), said("train", "stopped", message="preempted")],
        "running",
        None,
    ),
    "stopped, preempted for good": (
        [queued("train", "PREEMPTED"), said("train", "stopped", message="preempted")],
        "failed",
        "preempted; nothing has queued it again",
    ),
    "stopped, waits for its turn": (
        [queued("train", "PENDING", reason="BeginTime"), said("train", "stopped", message="preempted")],
        "pending",
        "waiting: not eligible yet: after a requeue Slurm holds a job for up to two minutes (BeginTime)",
    ),
    "stopped, and nothing follows": (
        [queued("train", "FAILED"), said("train", "stopped", message="a rank died", hint="look")],
        "failed",
        "a rank died; nothing has queued it again",
    ),
    "stopped, gone from the queue": (
        [said("train", "stopped", message="preempted")],
        "failed",
        "preempted; nothing has queued it again",
    ),
    "stopped, then cancelled by hand": (
        [queued("train", "CANCELLED"), said("train", "stopped", message="preempted")],
        "cancelled",
        None,
    ),
    "an earlier submission stopped": (
        [queued("train", "PENDING", reason="Priority"), said("train", "stopped", job_id="99", message="old")],
        "pending",
        "waiting: other jobs come first (Priority)",
    ),
    "held after a requeue": (
        [queued("train", "REQUEUE_HOLD", reason="launch failed requeued held"), said("train", "running")],
        "pending",
        "waiting: a node failed to start it, and Slurm holds it: scontrol release JOBID (launch failed requeued held)",
    ),
    "suspended": ([queued("train", "SUSPENDED"), said("train", "running")], "pending", None),
    "node failed": (
        [queued("train", "NODE_FAIL"), said("train", "running")],
        "failed",
        f"the job ended as NODE_FAIL: {KILLED}",
    ),
    "over its time limit": (
        [queued("train", "TIMEOUT"), said("train", "running")],
        "failed",
        f"the job ended as TIMEOUT: {KILLED}",
    ),
    "out of memory": (
        [queued("train", "OUT_OF_MEMORY"), said("train", "running")],
        "failed",
        f"the job ended as OUT_OF_MEMORY: {KILLED}",
    ),
    "vanished while it ran": ([said("train", "running")], "failed", f"the job ended without a word: {KILLED}"),
    "failed before it could say anything": (
        [queued("train", "FAILED")],
        "failed",
        "the job ended as FAILED before it could say anything",
    ),
    "a node without the filesystem": (
        [queued("train", "FAILED", reason="JobLaunchFailure")],
        "failed",
        "the job ended as FAILED before it could say anything: is the run directory's filesystem mounted on its node?",
    ),
    "node failed before the start": (
        [queued("train", "BOOT_FAIL")],
        "failed",
        "the job ended as BOOT_FAIL before it could say anything",
    ),
    "vanished before it started": ([], "failed", "the job is gone and never started"),
    "scancel by hand while it waited": ([queued("train", "CANCELLED")], "cancelled", None),
    "scancel by hand while it ran": (
        [queued("train", "CANCELLED"), said("train", "running")],
        "cancelled",
        None,
    ),
    "run by hand, beside the job that waits": (
        [queued("train", "PENDING"), said("train", "running", job_id="hand-7")],
        "pending",
        None,
    ),
    "started by hand when the job was gone": ([said("train", "running", job_id="hand-7")], "running", None),
    "waits for a person": (
        [queued("train", "FAILED"), said("train", "waiting", message="there is no key")],
        "waiting",
        "there is no key",
    ),
    "waits for a person, gone from the queue": ([said("train", "waiting", message="no key")], "waiting", "no key"),
    "waits for a person, its job ends": ([queued("train", "COMPLETING"), said("train", "waiting")], "running", None),
    "done by hand": ([queued("train", "PENDING"), said("train", "done", job_id="hand-7")], "done", None),
}


@pytest.mark.parametrize("local", [None, False, True])
def test_a_judge_that_waits_for_a_person_makes_the_run_wait_and_what_follows_is_pending(local):
    hint = "export KEY=..., then python jobs/judge.py RUN_DIR"
    waiting = said("judge", "waiting", message="there is no key", hint=hint)
    cancelled = [] if local is not None else [queued("report", "CANCELLED")]
    state = state_of(*done("preprocess", "train", "generate"), waiting, *cancelled, local=local)
    assert [stage.state for stage in state.stages][-2:] == ["waiting", "pending"]
    assert (state.state, state.finished, state.exit_code) == ("waiting", True, 104)
    assert (state.stages[-2].message, state.stages[-2].hint) == ("there is no key", hint)


@pytest.mark.parametrize(("hands_off", "state"), [([], "running"), (["hand-7"], "failed")])
def test_what_was_started_by_hand_runs_until_its_process_is_gone(hands_off, state):
    assert stage_of("judge", said("judge", "running", job_id="hand-7"), hands_off=hands_off).state == state


@pytest.mark.parametrize("local", [None, False])
def test_what_follows_a_stage_that_runs_by_hand_is_pending(local):
    judging = said("judge", "running", job_id="hand-7")
    state = state_of(*done("preprocess", "train", "generate"), judging, local=local)
    assert [stage.state for stage in state.stages][-2:] == ["running", "pending"]
    assert (state.state, state.finished) == ("running", False)


def test_a_report_that_slurm_holds_for_a_judge_that_waits_is_as_slurm_says():
    waiting = said("judge", "waiting")
    held = state_of(*done("preprocess", "train", "generate"), waiting, queued("report", "RUNNING"))
    assert held.stages[-1].state == "running"
    cancelled = state_of(*done("preprocess", "train", "generate"), waiting, cancelled=True)
    assert [stage.state for stage in cancelled.stages][-2:] == ["cancelled", "cancelled"]


@pytest.mark.parametrize(("known", "state", "message"), SLURM.values(), ids=SLURM)
def test_a_stage_under_slurm(known, state, message):
    stage = stage_of("train", *known)
    assert (stage.state, stage.message) == (state, message)
    assert stage.job_ids == ["102"]


LOCAL = {
    "not yet its turn": ([], True, "pending", None),
    "running": ([said("train", "running")], True, "running", None),
    "done": ([said("train", "done")], True, "done", None),
    "failed, the driver is about to stop": ([said("train", "failed", message="why")], True, "failed", "why"),
    "failed": ([said("train", "failed", message="why")], False, "failed", "why"),
    "driver killed while it ran": (
        [said("train", "running")],
        False,
        "failed",
        f"the job ended without a word: {KILLED}",
    ),
    "driver killed before it": ([], False, "failed", "the job is gone and never started"),
    "stopped, the driver tries it again": ([said("train", "stopped", message="a rank died")], True, "running", None),
    "stopped, the driver was killed": (
        [said("train", "stopped", message="a rank died")],
        False,
        "failed",
        "a rank died; nothing has queued it again",
    ),
    "submitted again, not yet its turn": ([said("train", "failed", job_id="99", message="old")], True, "pending", None),
}


@pytest.mark.parametrize(("known", "alive", "state", "message"), LOCAL.values(), ids=LOCAL)
def test_a_stage_on_this_machine(known, alive, state, message):
    stage = stage_of("train", *known, local=alive)
    assert (stage.state, stage.message) == (state, message)


UNKNOWN = {
    "never started": ([], "pending"),
    "last seen running": ([said("train", "running")], "running"),
    "done": ([said("train", "done")], "done"),
    "failed": ([said("train", "failed", message="why")], "failed"),
    "stopped": ([said("train", "stopped", message="why")], "running"),
    "an earlier submission failed": ([said("train", "failed", job_id="99")], "pending"),
}


@pytest.mark.parametrize(("known", "state"), UNKNOWN.values(), ids=UNKNOWN)
def test_without_an_answer_from_slurm_nothing_is_made_up(known, state):
    """Also for a local run that is looked at from another machine: neither queue nor driver is known."""
    stage = stage_of("train", *known, queue=None, problem="squeue does not answer")
    assert stage.state == state
    assert state_of(queue=None, problem="squeue does not answer").problem == "squeue does not answer"


@pytest.mark.parametrize("state", ["pending", "running"])
def test_resumed_and_the_old_status_is_still_there(state):
    """Only what the new job says counts; the old failure is history."""
    entry = queued("train", state.upper())
    old = said("train", "failed", job_id="99", message="an old story", hint="old", log="logs/train/99_0/0.err")
    stage = stage_of("train", old, entry)
    assert (stage.state, stage.message, stage.hint) == (state, None, None)
    assert stage_of("train", old).message == "the job is gone and never started"


def test_a_failure_cancels_what_depends_on_it():
    state = state_of(
        *done("preprocess"), said("train", "failed", message="why", hint="do this"), queued("train", "FAILED")
    )
    assert [stage.state for stage in state.stages] == ["done", "failed", "cancelled", "cancelled", "cancelled"]
    assert (state.state, state.finished, state.exit_code) == ("failed", True, 100)
    assert [stage.message for stage in state.stages] == [None, "why", None, None, None]
    assert state.stages[1].hint == "do this"


@pytest.mark.parametrize(
    ("slurm_says", "reason", "expected"),
    [
        ("CANCELLED", "Dependency", "cancelled"),
        ("PENDING", "DependencyNeverSatisfied", "cancelled"),
        ("PENDING", "Dependency", "cancelled"),
        ("PENDING", "Priority", "pending"),
    ],
)
def test_dependants_that_slurm_still_shows_after_a_failure(slurm_says, reason, expected):
    waiting = [queued(stage, slurm_says, reason=reason) for stage in ("judge", "report")]
    state = state_of(*done("preprocess"), said("train", "failed", message="why"), *waiting)
    assert [stage.state for stage in state.stages] == ["done", "failed", "cancelled", expected, expected]
    assert state.state == "failed"
    generating = [queued("generate", "PENDING", index=index) for index in range(3)]
    before_the_failure = state_of(*done("preprocess"), queued("train", "RUNNING"), *generating, *waiting)
    assert before_the_failure.stages[3].state == ("cancelled" if slurm_says == "CANCELLED" else "pending")


def test_a_cancelled_run():
    known = [*done("preprocess"), said("train", "running"), queued("train", "CANCELLED")]
    state = state_of(*known, cancelled=True)
    assert [stage.state for stage in state.stages] == ["done", *["cancelled"] * 4]
    assert (state.state, state.finished, state.exit_code) == ("cancelled", True, 103)
    assert all(stage.message is None for stage in state.stages)


@pytest.mark.parametrize("entries", [[], [queued("train", "CANCELLED")], [queued("train", "FAILED")]])
@pytest.mark.parametrize("word", ["running", "stopped", "failed"])
def test_cancelled_is_cancelled_whatever_the_last_attempt_said(word, entries):
    state = state_of(*done("preprocess"), said("train", word, message="why"), *entries, cancelled=True)
    assert (state.stages[1].state, state.stages[1].message, state.state) == ("cancelled", None, "cancelled")


def test_a_cancelled_run_whose_jobs_still_end():
    state = state_of(*done("preprocess"), said("train", "running"), queued("train", "COMPLETING"), cancelled=True)
    assert state.stages[1].state == "running"


def task(index: int, state: str, **more: str) -> list:
    """One task of the array: what it said, or how it stands in the queue (capitals)."""
    return [(queued if state.isupper() else said)("generate", state, index=index, **more)]


ARRAY = {
    "all wait": ([entry for i in range(3) for entry in task(i, "PENDING", reason="Resources")], "pending"),
    "one has begun": ([*task(1, "RUNNING"), *task(0, "PENDING"), *task(2, "PENDING")], "running"),
    "some are done, one waits": ([*task(0, "done"), *task(2, "done"), *task(1, "PENDING")], "running"),
    "some are done, one is requeued": (
        [*task(0, "done"), *task(1, "done"), *task(2, "running"), *task(2, "PENDING")],
        "running",
    ),
    "all are done": ([entry for i in range(3) for entry in task(i, "done")], "done"),
    "one failed, one still runs": (
        [*task(1, "failed", message="why"), *task(2, "RUNNING"), *task(0, "done")],
        "failed",
    ),
}


@pytest.mark.parametrize(("known", "state"), ARRAY.values(), ids=ARRAY)
def test_an_array(known, state):
    stage = stage_of("generate", *known)
    assert stage.state == state
    expected = {"failed": "why", "pending": "waiting: first in line for free nodes (Resources)"}.get(state)
    assert stage.message == expected


def test_the_message_of_an_array_is_that_of_a_task_that_failed():
    """Not the reason for which another one waits, and with its own hint and log."""
    stage = stage_of(
        "generate",
        queued("generate", "PENDING", index=0, reason="Resources"),
        said("generate", "running", index=1, log="logs/1"),
        queued("generate", "RUNNING", index=1),
        said("generate", "failed", index=2, message="no such model", hint="look", log="logs/2"),
    )
    assert (stage.state, stage.message, stage.hint, stage.log) == ("failed", "no such model", "look", "logs/2")


def test_the_progress_of_an_array_is_the_sum():
    known = [said("generate", "running", index=i, progress=progress(10 * (i + 1), 50, "answers")) for i in (0, 1)]
    stage = stage_of("generate", *known, *[queued("generate", "RUNNING", index=i) for i in range(3)])
    assert stage.progress == progress(30, 150, "answers"), "the third counts as the average of the others"
    assert stage_of("train", queued("train", "PENDING")).progress is None


def test_restarts_time_and_log_are_told():
    stage = stage_of(
        "train", said("train", "running", restart=3, log="logs/train/102_3/0.err"), queued("train", "RUNNING")
    )
    assert (stage.restarts, stage.elapsed, stage.limit) == (3, "1:23", "12:00:00")
    assert stage.log == "logs/train/102_3/0.err"
    waiting = stage_of("train", queued("train", "PENDING"))
    assert (waiting.elapsed, waiting.limit, waiting.restarts) == (None, None, 0)


def test_other_jobs_in_the_queue_do_not_matter():
    """The queue holds all jobs of the user, those of an earlier submission of this run among them."""
    stage = stage_of("train", said("train", "running"), queued("train", "RUNNING", job_id="999"))
    assert stage.state == "failed"
    known = [
        queued("train", "RUNNING"),
        queued("train", "FAILED", job_id="1021"),
        queued("train", "FAILED", job_id="10"),
    ]
    for order in itertools.permutations(known):
        assert stage_of("train", *order).state == "running"


def test_what_was_not_submitted_does_not_count():
    state = state_of(*done("preprocess"), ids={"preprocess": "101"})
    assert [stage.state for stage in state.stages] == ["done", *["unsubmitted"] * 4]
    assert (state.state, state.exit_code) == ("done", 0)
    nothing = state_of(ids={})
    assert (nothing.state, nothing.finished, nothing.exit_code) == ("unsubmitted", False, 101)


def test_a_stage_that_was_only_run_by_hand():
    running = stage_of("train", said("train", "running", job_id="hand-7"), ids={"preprocess": "101"})
    assert (running.state, running.job_ids) == ("running", ["hand-7"])
    failed = stage_of("train", said("train", "failed", job_id="hand-7", message="why"), ids={"preprocess": "101"})
    assert (failed.state, failed.message) == ("failed", "why")
    stopped = stage_of("train", said("train", "stopped", job_id="hand-7", message="why"), ids={"preprocess": "101"})
    assert (stopped.state, stopped.message) == ("failed", "why"), "nothing starts it again"


@pytest.mark.parametrize(
    ("known", "state", "code"),
    [
        ([queued(stage, "PENDING", index=i) for stage in IDS for i in range(3)], "pending", 101),
        (
            [*done("preprocess"), *[queued(stage, "PENDING", index=i) for stage in list(IDS)[1:] for i in range(3)]],
            "running",
            101,
        ),
        (done(*IDS), "done", 0),
    ],
)
def test_the_state_of_the_run_and_its_exit_code(known, state, code):
    found = state_of(*known)
    assert (found.state, found.exit_code) == (state, code)
    assert found.finished is (state == "done")


def test_exit_codes_are_the_contract():
    assert EXIT_CODE == {
        "done": 0,
        "failed": 100,
        "pending": 101,
        "running": 101,
        "unsubmitted": 101,
        "cancelled": 103,
        "waiting": 104,
    }


def test_the_document_is_the_contract():
    known = [*done("preprocess"), said("train", "running", progress=progress(3)), queued("train", "RUNNING")]
    document = json.loads(state_of(*known, train={"loss": 1.5}).model_dump_json())
    assert document["schema_version"] == 1
    assert {"schema_version", "run_dir", "state", "stages", "train"} <= document.keys()
    for stage in document["stages"]:
        assert {"name", "state", "job_ids", "restarts", "progress", "message", "log"} <= stage.keys()
    assert document["stages"][1]["progress"] == {"done": 3, "total": 100, "unit": "steps"}
    assert document["train"] == {"loss": 1.5}


def test_the_state_does_not_hang_on_the_order_of_facts():
    known = [
        *done("preprocess", "train"),
        said("generate", "failed", index=1, message="why"),
        queued("generate", "FAILED", index=1),
    ]
    given = facts(*known)
    turned = given.model_copy(update={"statuses": given.statuses[::-1], "queue": (given.queue or [])[::-1]})
    assert run_state(turned) == run_state(given)


def test_a_failure_by_hand_before_the_run_was_resumed_is_history():
    """Failed by hand at 10:00, submitted to this machine at 11:00: the driver has not come to it yet."""
    old = said("train", "failed", job_id="hand-7", message="old", updated="2026-11-22T10:00:00.000+00:00")
    given = facts(*done("preprocess"), old, local=True)
    again = SubmittedStage(
        stage="train", job_id="local-8", depends_on=[], tasks=1, submitted="2026-11-22T11:00:00.000+00:00"
    )
    found = run_state(given.model_copy(update={"submitted": {**given.submitted, "train": again}}))
    assert found.stages[1].state == "pending"


def test_what_failed_has_not_ended_while_parts_of_it_go_on():
    """They burn GPUs, and can be cancelled."""
    known = [*done("preprocess", "train"), said("generate", "failed", message="x"), queued("generate", "FAILED")]
    state = state_of(*known, queued("generate", "RUNNING", index=1), queued("generate", "PENDING", index=2))
    assert (state.state, state.finished, state.exit_code) == ("failed", False, 100)
    over = state_of(*known, *(queued("generate", "CANCELLED", index=index) for index in (1, 2)))
    assert (over.state, over.finished) == ("failed", True)


WITH_BENCHMARK = make_plan(parse_spec({**VALUES, "benchmark": {"tasks": ["x"], "checkpoints": ["base"]}}))
BENCHMARK_IDS = {**IDS, "benchmark": "106"}


def beside(*known, **more):
    """States of the stages of a run whose benchmark and judge both follow other stages, but not each other."""
    before = done("preprocess", "train")
    state = state_of(*before, *known, plan=WITH_BENCHMARK, ids=BENCHMARK_IDS, **more)
    return state.finished, {stage.name: stage.state for stage in state.stages}


def test_a_stage_waits_only_for_what_it_depends_on():
    failed = StageStatus(stage="benchmark", index=0, state="failed", attempt=1, job_id="106", message="x")
    ended = QueueEntry("106", 0, "FAILED", "None", "1:23", "12:00:00")
    judge = queued("judge", "PENDING", reason="Dependency")
    report = queued("report", "PENDING", reason="Dependency")
    answering = [queued("generate", "RUNNING", index=index) for index in range(3)]
    finished, states = beside(failed, ended, *answering, judge, report)
    assert (states["benchmark"], states["judge"], states["report"]) == ("failed", "pending", "cancelled")
    assert not finished
    answered = [said("generate", "done", index=index) for index in range(3)]
    _, states = beside(failed, *answered, local=True)
    assert states["judge"] == "cancelled", "the driver on one machine ends with the first that fails"


AS_OF = 1_800_000_000.0


def at(seconds: float) -> str:
    return datetime.fromtimestamp(AS_OF + seconds, timezone.utc).isoformat()


def test_a_task_that_has_started_since_slurm_was_asked_runs():
    pending = queued("train", "PENDING", reason="Priority")
    assert stage_of("train", said("train", "running", started=at(3)), pending, as_of=AS_OF).state == "running"
    assert stage_of("train", said("train", "running", started=at(-60)), pending, as_of=AS_OF).state == "pending"


def test_the_last_word_of_a_job_that_has_just_ended_is_waited_for():
    """On a network filesystem it takes a moment to be seen; then it is no silence."""
    end = datetime.fromtimestamp(AS_OF).isoformat()
    ended = queued("train", "FAILED")._replace(end=end)
    assert stage_of("train", said("train", "running"), ended, now=AS_OF + 5).state == "running"
    assert stage_of("train", said("train", "running"), ended, now=AS_OF + 60).state == "failed"
    assert stage_of("train", said("train", "stopped", message="x"), ended, now=AS_OF + 5).state == "running"
    assert stage_of("train", said("train", "failed", message="x"), ended, now=AS_OF + 5).state == "failed"


def test_of_several_runs_the_worst_decides_the_exit_code():
    states = [state_of(*done(*PLAN.stage_names)), state_of(queued("preprocess", "RUNNING"), ids={"preprocess": "101"})]
    assert exit_code(states) == 101 and exit_code(states[:1]) == 0
    waits = state_of(*done("preprocess", "train", "generate"), said("judge", "waiting", message="no key"))
    failed = state_of(said("preprocess", "failed", message="x"))
    assert exit_code([*states, waits]) == 104 and exit_code([waits, failed]) == 100


def test_all_that_follows_what_a_person_runs_is_in_that_persons_hands():
    """Not called lost, though nothing of it is in the queue: also where another stage lies between."""
    known = said("preprocess", "running", job_id="hand-7", started=at(0))
    state = state_of(known)
    assert [stage.state for stage in state.stages] == ["running", *["pending"] * 4] and not state.finished
