"""Guards that a failure is called what it is, says where it was, and ends in something that can be done."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hpcsft.attempt.causes import CAUSES, judge_end
from hpcsft.monitor.failure.naming import KINDS, Failure, name_failure, suspects
from hpcsft.records import Progress, StageStatus
from tests.monitor.failure.excerpts import CUDA_OOM, EXCERPTS, FRAMES, GLOO, Excerpt

RUN = "/runs/tiny-0123abcd"
RETRIES = dict.fromkeys(
    ("preemption", "timeout", "node_failure", "bad_node", "rank_failure", "out_of_memory", "hang", "no_progress"), 10
)


def row(event: str, **facts: Any) -> dict[str, Any]:
    """A line of the journal."""
    return {"event": event, "stage": "train", "index": 0, "job_id": "12", "restart": 0, "host": "n2", **facts}


START = row("start", attempt=1, world_size=4)
READY = row("ready")


def failed(cause: str, message: str, hint: str | None = None, rank: int = 3) -> dict[str, Any]:
    """What a rank said."""
    return row("failed", cause=cause, message=message, rank=rank, hint=hint or CAUSES[cause].hint)


def ended(cause: str) -> dict[str, Any]:
    return row("end", cause=cause, progressed=True)


def said(state: str, message: str | None = None, hint: str | None = None, **more: Any) -> StageStatus:
    """What the task said last, in its 118th step."""
    return StageStatus(
        stage="train",
        index=0,
        state=state,
        attempt=1,
        message=message,
        hint=hint,
        **{"job_id": "12", "host": "n1", "progress": Progress(done=117, total=500, unit="steps"), **more},
    )


def name(
    *rows: dict[str, Any],
    status: StageStatus | None = None,
    state: str | None = "FAILED",
    text: str = "",
    stage: str = "train",
    **more: Any,
) -> Failure:
    """Name a failure of the last lines `text`."""
    given = {"message": None, "log": "logs/train/12_0/3.err", "lines": text.splitlines(), **more}
    return name_failure(run_dir=RUN, stage=stage, status=status, rows=rows, slurm_state=state, **given)


def of_excerpt(excerpt: Excerpt) -> Failure:
    rows = [START] if excerpt.began else []
    if excerpt.cause:
        rows.append(ended(excerpt.cause))
    lines = excerpt.lines
    return name(*rows, state=excerpt.slurm_state, stage=excerpt.stage, lines=lines, first_line_number=101)


@pytest.mark.parametrize("called", EXCERPTS)
def test_every_kind_of_failure_is_told_from_the_others(called: str) -> None:
    excerpt = EXCERPTS[called]
    found = of_excerpt(excerpt)
    assert found.kind == excerpt.kind, found
    if excerpt.decisive is not None:
        assert found.line_number == 101 + excerpt.decisive
        assert found.line and excerpt.lines[excerpt.decisive].startswith(found.line.removesuffix("..."))
    assert 0 < len(found.title) < 300 and "\n" not in found.title


def test_the_excerpts_show_every_kind() -> None:
    assert {excerpt.kind for excerpt in EXCERPTS.values()} == set(KINDS)


@pytest.mark.parametrize("called", EXCERPTS)
def test_every_failure_ends_in_something_that_can_be_done(called: str) -> None:
    advice = of_excerpt(EXCERPTS[called]).next
    assert f"python launch/resume.py {RUN}" in advice or "python launch/submit.py " in advice
    assert "RUN_DIR" not in advice and "{" not in advice


def test_a_rank_that_ran_out_of_memory_is_named_with_its_node_and_step() -> None:
    message = CUDA_OOM
    status = said("failed", f"ran out of memory: {message} (1 time; no smaller micro batch can be tried)")
    found = name(
        START, READY, failed("out_of_memory", message), ended("out_of_memory"), status=status, text=FRAMES + CUDA_OOM
    )
    assert found.title == (
        "out of memory on the GPU (22.00 MiB more were asked for), rank 3 on n2, in step 118; no smaller micro batch "
        "can be tried"
    )
    assert (found.rank, found.host, found.line_number, found.log) == (3, "n2", 7, "logs/train/12_0/3.err")
    assert f"python launch/resume.py {RUN} --set cluster.train.nodes=" in found.next


def test_before_the_first_step_no_step_is_named() -> None:
    rows = [START, failed("code", "KeyError: 1"), ended("code")]
    found = name(*rows, text=f"{FRAMES}KeyError: 1", status=said("failed"))
    assert found.title == "error in the code, rank 3 on n2, before the first step: KeyError: 1"
    assert f"python launch/logs.py {RUN} train --rank 3 " in found.next and f"{RUN}/code" in found.next


def test_a_stage_of_one_process_has_no_rank_to_name() -> None:
    rows = [row("start", attempt=1, world_size=1), failed("code", "KeyError: 1", rank=0), ended("code")]
    found = name(*rows, text=f"{FRAMES}KeyError: 1", stage="generate")
    assert found.title == "error in the code: KeyError: 1" and "--rank" not in found.next


def test_the_dead_are_those_that_srun_names_not_those_who_missed_them() -> None:
    rows = [START, READY, failed("rank_failure", GLOO, rank=0), ended("rank_failure")]
    found = name(*rows, text="srun: error: n4: task 2: Killed\n", status=said("failed"))
    assert (found.kind, found.title, found.rank, found.host) == ("rank_died", "rank 2 on n4 was killed", 2, "n4")
    left = name(*rows, text="srun: error: n4: task 2: Exited with exit code 7")
    assert (left.kind, left.title) == ("rank_died", "rank 2 on n4 ended with exit code 7")
    fault = name(*rows, text="srun: error: n4: task 2: Segmentation fault")
    assert fault.title == "rank 2 on n4 died: Segmentation fault"
    missed = name(*rows, text=FRAMES + GLOO, status=said("failed"))
    assert missed.title == "a rank died, and was missed by rank 0 on n2"


def test_used_up_retries_are_told() -> None:
    ends = [ended("node_failure")] * 11
    verdict = judge_end(ends, "node_failure", None, RETRIES)
    status = said("failed", verdict.message, verdict.hint)
    found = name(START, ends[-1], status=status, text="srun: error: Node failure on n2")
    assert found.title == "the node n2 failed; 10 of 10 retries are used"
    assert found.next.endswith("--set cluster.sbatch.exclude=n2 on another node")
    unknown = name(START, ends[-1], status=status)
    assert unknown.title == "lost without notice: the node failed, or Slurm took it away; 10 of 10 retries are used"
    cut_off = name(
        START, ends[-1], text="slurmstepd: error: *** JOB 2 ON n1 CANCELLED AT 4 DUE TO NODE FAILURE, SEE ***"
    )
    assert cut_off.title == "a node failed" and "exclude" not in cut_off.next
    none = judge_end(ends[:1], "hang", None, {**RETRIES, "hang": -1})
    hung = name(START, ended("hang"), status=said("failed", none.message.replace("-1", "0"), none.hint))
    assert hung.title.endswith("; cluster.retries.hang is 0")


def test_a_node_is_shut_out_by_the_name_that_slurm_has_for_it() -> None:
    broken = {**failed("node_failure", "CUDA error: uncorrectable ECC error encountered"), "host": "n2.cluster.org"}
    found = name(START, READY, broken, ended("node_failure"), status=said("failed"))
    assert found.title.startswith("a GPU is not fit for use, rank 3 on n2.cluster.org, in step 118: CUDA error")
    assert "cluster.sbatch.exclude=n2 " in found.next


def test_a_node_that_the_check_found_unfit_is_named_and_not_the_one_that_told_it() -> None:
    told = "n7: /local takes no temporary files: No space left on device"
    unfit = row("unfit", nodes={"n7": "/local takes no temporary files: No space left on device"})
    end = {**ended("bad_node"), "unfit": ["n7"]}
    message = f"a node is not fit for use: {told} (4 times; cluster.retries.bad_node is 3)"
    rows = [START, unfit, failed("bad_node", told, rank=0), end]
    found = name(*rows, status=said("failed", message), text=f"error: {told}")
    assert (found.kind, found.host, found.rank) == ("node", "n7", None)
    assert found.title == f"the node is not fit for use, before the first step: {told}; 3 of 3 retries are used"
    assert "--set cluster.sbatch.exclude=n7" in found.next
    several = name(*rows, status=said("failed", message.replace("4 times", "5 nodes")), text=f"error: {told}")
    assert several.title == found.title


def test_a_message_is_quoted_without_what_the_title_says_anyway() -> None:
    status = said("failed", "a rank died: NCCL error: no route to host (1 time; cluster.retries.rank_failure is 0)")
    found = name(START, ended("rank_failure"), status=status)
    assert found.title == (
        "communication between ranks failed: a rank died: NCCL error: no route to host; "
        "cluster.retries.rank_failure is 0"
    )


def test_what_helps_depends_on_the_stage() -> None:
    rows = [row("start", attempt=1, world_size=1), failed("out_of_memory", CUDA_OOM, rank=0), ended("out_of_memory")]
    assert "train.offload" in name(*rows).next
    elsewhere = name(*rows, stage="generate").next
    assert "cluster.generate.gpus_per_node=" in elsewhere and "train." not in elsewhere


def test_a_full_disk_and_a_quota_are_two_things() -> None:
    rows = [START, READY, failed("disk_full", "OSError"), ended("disk_full")]
    full = name(*rows, status=said("failed"), text=f"{FRAMES}OSError: [Errno 28] No space left on device")
    assert full.title == "no space left on the disk, rank 3 on n2, in step 118"
    quota = name(*rows, status=said("failed"), text=f"{FRAMES}OSError: [Errno 122] Disk quota exceeded")
    assert quota.title == "the disk quota is used up, rank 3 on n2, in step 118"


def test_a_process_that_ends_itself_is_an_error_in_the_code() -> None:
    rows = [START, READY, failed("code", "stopped from outside (SystemExit)"), ended("code")]
    found = name(*rows, text="srun: error: n2: task 1: Exited with exit code 1")
    assert (found.kind, found.rank, found.host) == ("code", 1, "n2")
    assert found.title == "error in the code, rank 1 on n2: stopped from outside (SystemExit)"
    early = name(ended("rank_failure"), text=f"{FRAMES}SyntaxError: invalid syntax")
    assert (early.kind, early.title) == ("code", "error in the code: SyntaxError: invalid syntax")


def test_a_hang_names_its_rank_and_where_it_hung() -> None:
    found = of_excerpt(EXCERPTS["a hang"])
    assert (found.title, found.rank, found.host) == ("rank 0 hung in step 9, for 15 s", 0, None)


def test_attempts_that_saved_nothing_are_told_with_the_hint_about_them() -> None:
    ends = [{**ended("preemption"), "progressed": False}] * 10
    verdict = judge_end(ends, "preemption", None, RETRIES)
    found = name(START, ends[-1], status=said("failed", verdict.message, verdict.hint))
    assert (found.kind, found.title) == ("preemption", "preempted; 10 attempts in a row saved nothing new")
    assert found.next == f"{verdict.hint}; then python launch/resume.py {RUN}"


@pytest.mark.parametrize(("cause", "kind"), [("preemption", "preemption"), ("timeout", "time_limit"), ("hang", "hang")])
def test_an_attempt_that_ends_for_the_one_before_is_of_that_ones_kind(cause: str, kind: str) -> None:
    """Whoever looks back at an attempt that nobody judged raises its verdict as an error of the next."""
    verdict = judge_end([ended(cause)] * 11, cause, None, RETRIES)
    rows = [failed("code", verdict.message, verdict.hint, rank=0), ended("code")]
    found = name(*rows, status=said("failed", verdict.message, verdict.hint), text=f"error: {verdict.message}")
    assert found.kind == kind and found.title.endswith("; 10 of 10 retries are used")
    stuck = judge_end([{**ended(cause), "progressed": False}] * 10, cause, None, RETRIES)
    rows = [failed("code", stuck.message, stuck.hint, rank=0), ended("code")]
    assert name(*rows, status=said("failed", stuck.message, stuck.hint), text=f"error: {stuck.message}").kind == kind


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("OUT_OF_MEMORY", "host_memory"),
        ("TIMEOUT", "time_limit"),
        ("NODE_FAIL", "node"),
        ("BOOT_FAIL", "node"),
        ("PREEMPTED", "preemption"),
        ("CANCELLED", "cancelled"),
        ("COMPLETED", "silent"),
        (None, "silent"),
    ],
)
def test_where_the_run_says_nothing_slurm_is_believed(state: str | None, kind: str) -> None:
    assert name(START, status=said("running"), state=state).kind == kind


def test_what_a_rank_said_counts_more_than_what_slurm_calls_the_job() -> None:
    rows = [START, failed("code", "KeyError: 1"), ended("code")]
    assert name(*rows, state="CANCELLED", text=f"{FRAMES}KeyError: 1").kind == "code"
    assert name(*rows, state="NODE_FAIL").kind == "code"


def test_without_a_log_the_message_decides() -> None:
    hint = "a lower learning rate usually cures it"
    rows = [START, READY, failed("code", "step 2 is not finite: its loss is nan", hint), ended("code")]
    found = name(*rows, log=None)
    assert (found.kind, found.title) == ("not_finite", "step 2 is not finite: its loss is nan")
    assert (found.line, found.log, found.line_number) == (None, None, None)
    assert found.next == f"{hint}; submit what you change: python launch/submit.py SPEC.json"
    bad = name(START, failed("code", "9 of 9 rows are no conversations", "see data.format"), stage="preprocess")
    assert (bad.kind, bad.title) == ("data", "bad data: 9 of 9 rows are no conversations")
    assert name(START, failed("out_of_memory", CUDA_OOM), ended("out_of_memory")).kind == "out_of_memory"
    assert name(START, failed("out_of_memory", "MemoryError"), ended("out_of_memory")).kind == "host_memory"
    assert name(START, ended("out_of_memory"), state="OUT_OF_MEMORY").title == "killed by the kernel for memory"


def test_a_hint_with_a_command_is_left_as_it_is() -> None:
    hint = "export KEY=...; what was judged is kept; python jobs/judge.py RUN_DIR goes on"
    rows = [START, failed("waiting", "the judge needs a key", hint), ended("waiting")]
    found = name(*rows, status=said("waiting", "the judge needs a key", hint), stage="judge")
    assert (found.kind, found.title) == ("judge", "the judge needs a key")
    assert found.next == f"export KEY=...; what was judged is kept; python jobs/judge.py {RUN} goes on"


def test_what_somebody_ended_is_no_failure_of_anything() -> None:
    with_marker = name(START, ended("cancelled"), state="CANCELLED")
    assert (with_marker.kind, with_marker.title) == ("cancelled", "cancelled")
    status = said("failed", "preempted (1 time; cluster.retries.preemption is 0)")
    with_scancel = name(START, ended("preemption"), status=status, state="CANCELLED")
    assert (with_scancel.kind, with_scancel.title) == ("cancelled", "cancelled with scancel")
    line = "slurmstepd: error: *** JOB 19 ON n1 CANCELLED AT 2026-11-30T03:59:00 ***"
    forgotten = name(START, ended("preemption"), status=status, state=None, text=line)
    assert (forgotten.kind, forgotten.title) == ("cancelled", "cancelled with scancel")
    preempted = name(START, ended("preemption"), text="srun: error: n2: task 1: Killed")
    assert preempted.kind == "preemption"
    hand = said("waiting", "stopped after step 3: SIGINT", "python jobs/train.py x goes on", job_id="hand-7")
    by_hand = name(START, row("stopped", cause="signal"), status=hand, state=None)
    assert (by_hand.kind, by_hand.title) == ("cancelled", "stopped by hand")


def test_a_time_limit_tells_how_far_it_came() -> None:
    found = name(START, READY, ended("timeout"), status=said("failed", "reached its time limit"))
    assert found.host is None, "it is not one of its nodes that ended it"
    assert found.title == "reached its time limit at 117 of 500 steps"
    assert f"python launch/resume.py {RUN} --set cluster.train.time=" in found.next


def test_a_line_is_cut_and_cannot_write_to_the_terminal() -> None:
    found = name(START, ended("code"), text=f"{FRAMES}\x1b[31mValueError: \x1b]0;title\x07{'x' * 4000}\n")
    assert found.line and len(found.line) == 300 and found.line.isprintable() and found.line.endswith("...")
    assert len(found.title) < 300


def test_a_harmless_line_of_the_setup_is_not_shown_as_the_reason() -> None:
    found = name(START, ended("preemption"), text="/job/slurm_script: line 19: module: command not found")
    assert (found.kind, found.line, found.line_number) == ("preemption", None, None)
    assert name(START, text="/job/slurm_script: line 19: module: command not found").kind == "silent"


def test_the_logs_to_look_at_begin_with_the_rank_that_failed_first() -> None:
    srun = ["srun: error: n2: task 2: Exited with exit code 1", "srun: error: n1: task 1: Killed"]
    assert suspects([START, failed("rank_failure", GLOO, rank=1), failed("code", "KeyError")], srun) == [3, 2, 0]
    assert suspects([ended("rank_failure")], srun) == [2, 0]
    assert suspects([], []) == [0]


def test_nothing_makes_it_stumble() -> None:
    chance = random.Random(11)
    texts = [line for excerpt in EXCERPTS.values() for line in excerpt.lines]
    events = [START, READY, row("notice", signal="SIGTERM"), *(ended(cause) for cause in CAUSES)]
    events += [failed(cause, chance.choice(texts)) for cause in CAUSES]
    states = [None, "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "UNHEARD_OF"]
    statuses = [None, said("running"), said("waiting", "x", job_id="hand-7"), said("stopped", chance.choice(texts))]
    for _ in range(2000):
        rows = chance.choices(events, k=chance.randrange(4))
        lines = chance.choices(texts, k=chance.randrange(6))
        found = name(
            *rows,
            status=chance.choice(statuses),
            state=chance.choice(states),
            lines=lines,
            stage=chance.choice(["preprocess", "train", "generate", "benchmark", "judge", "report"]),
            message=chance.choice([None, *texts]),
        )
        assert found.title and "python " in found.next, found
