"""Runs in the situations that the screens are kept for: everything that a person may find in the morning."""

from __future__ import annotations

from typing import Any

from hpcsft.monitor.state.facts import Details, Judged, Log
from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.navigation import Place
from hpcsft.monitor.view.pages import LogView
from hpcsft.slurm_queue import QueueEntry
from hpcsft.usage import Advice, Hours, StageUsage, Usage
from tests.monitor.situations import IDS, PLAN, progress, queued, said, state_of

NOW = 1_796_040_151.0
"""Monday, 30 November 2026, 12:02:31 UTC."""

TRAIN: dict[str, Any] = {
    "step": 1234,
    "epoch": 1.234,
    "loss": 1.23456,
    "lr": 1.8e-5,
    "grad_norm": 0.98765,
    "tokens": 65_536,
    "tokens_per_s": 123456.7,
    "mfu": 0.412,
    "memory_gb": 38.41,
    "pace_s": 4.2,
    "losses": [3.0 - 0.007 * n for n in range(240)],
    "validation": [{"checkpoint": "base", "loss": 2.5}, {"checkpoint": "epoch-1", "loss": 1.9}],
    "checkpoint": "step-001200",
    "checkpoint_time": NOW - 143,
}

LOG = LogView(
    "logs/train/102_0/0.out",
    [
        f"11:{5 * n:02d}:40 published step-{100 * n + 100:06d} after 6.1 s, 0.4 s of them held up training"
        for n in range(12)
    ],
    range(32),
)
NO_LOG = LogView(None)


def row(event: str, restart: int, minute: int, **facts: Any) -> dict[str, Any]:
    where = {"index": 0, "job_id": IDS["train"], "restart": restart, "host": f"n{restart + 1}"}
    return {**where, "event": event, "time": f"2026-11-30T09:{minute:02d}:00+00:00", **facts}


def done(*stages: str) -> list[Any]:
    return [said(stage, "done", index=index) for stage in stages for index in range(PLAN.stage(stage).tasks)]


def waiting(*stages: str) -> list[QueueEntry]:
    return [
        queued(stage, "PENDING", index=index, reason="Dependency")
        for stage in stages
        for index in range(PLAN.stage(stage).tasks)
    ]


AFTER_TRAIN = waiting("generate", "judge", "report")
RETRIES = {"timeout": 100}
AT_WORK = said(
    "train",
    "running",
    progress=progress(1234, 3000),
    updated="2026-11-30T12:02:30+00:00",
    started="2026-11-30T09:40:00+00:00",
)
PREEMPTED = [
    row("start", 0, 1),
    row("resumed", 0, 2, step=0, lost_steps=0),
    row("stopped", 0, 30, cause="preemption", step=640),
    row("end", 0, 30, cause="preemption"),
]
BACK = [*PREEMPTED, row("start", 1, 40), row("resumed", 1, 41, step=640, lost_steps=0)]
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB"
BROKEN = [
    row("start", 0, 1),
    row("resumed", 0, 2, step=0, lost_steps=0),
    row("failed", 0, 5, cause="out_of_memory", rank=3, message=OOM, hint=None),
    row("end", 0, 6, cause="out_of_memory"),
]
NO_KEY = [
    {**row("start", 0, 50), "stage": "judge", "job_id": IDS["judge"]},
    {**row("failed", 0, 50, cause="waiting", rank=0, message="OPENAI_API_KEY is not set"), "job_id": IDS["judge"]},
]


def at(*known: Any, **more: Any) -> RunState:
    """The state with Slurm's answer of this moment."""
    return state_of(*known, **{"now": NOW, "as_of": NOW - 4, **more})


PENDING = at(
    *(queued("preprocess", "PENDING", index=0, reason="AssocGrpGRES")._replace(start="2026-11-30T14:20:00"),),
    *waiting("train", "generate", "judge", "report"),
    details=Details(retries=RETRIES),
)
RUNNING = at(
    *done("preprocess"),
    AT_WORK,
    QueueEntry(IDS["train"], 0, "RUNNING", "None", "2:22:27", "12:00:00", "", "n[1-4]"),
    *AFTER_TRAIN,
    train=TRAIN,
    details=Details(retries=RETRIES, journals={("train", 0): PREEMPTED[:2]}),
)
LIMIT_FIRST = at(
    *done("preprocess"),
    AT_WORK,
    QueueEntry(IDS["train"], 0, "RUNNING", "None", "11:22:27", "12:00:00", "", "n[1-4]"),
    *AFTER_TRAIN,
    train=TRAIN,
    details=Details(retries=RETRIES, journals={("train", 0): PREEMPTED[:2]}),
)
REQUEUED = at(
    *done("preprocess"),
    said("train", "stopped", message="preempted", progress=progress(640, 3000)),
    queued("train", "PENDING", reason="Priority")._replace(start="2026-11-30T12:40:00"),
    *AFTER_TRAIN,
    train={**TRAIN, "step": 640},
    details=Details(retries=RETRIES, journals={("train", 0): PREEMPTED}),
)
BACK_AGAIN = at(
    *done("preprocess"),
    AT_WORK.model_copy(update={"restart": 1}),
    QueueEntry(IDS["train"], 0, "RUNNING", "None", "2:22:27", "12:00:00", "", "n[1-4]"),
    *AFTER_TRAIN,
    train=TRAIN,
    details=Details(
        retries=RETRIES,
        journals={("train", 0): BACK},
        heartbeats=[
            {"rank": rank, "host": f"n{rank // 8 + 1}", "phase": "step", "step": 1234, "updated": moment}
            for rank, moment in enumerate(["2026-11-30T12:02:20+00:00"] * 11 + ["2026-11-30T11:59:01+00:00"])
        ],
    ),
)
FAILED = at(
    *done("preprocess"),
    said("train", "failed", message=f"ran out of memory: {OOM}", log="logs/train/102_0/0.err", hint=None),
    queued("train", "FAILED"),
    train=TRAIN,
    details=Details(
        retries=RETRIES,
        journals={("train", 0): BROKEN},
        logs={("train", 0): [Log(path="logs/train/102_0/3.err", lines=["Traceback (most recent call last):", OOM])]},
    ),
)
JUDGED = [
    Judged(name="base", answers=805, verdicts=[(row_, 0.2) for row_ in range(805)]),
    Judged(name="epoch-1", answers=805, verdicts=[(row_, float(row_ % 3 == 0)) for row_ in range(300)]),
    Judged(name="epoch-2", answers=510, verdicts=[]),
]
JUDGING = at(
    *done("preprocess", "train", "generate"),
    said("judge", "running", progress=progress(1105, 4830, "verdicts")),
    QueueEntry(IDS["judge"], 0, "RUNNING", "None", "0:12:27", "4:00:00", "", "n1"),
    *waiting("report"),
    train=TRAIN,
    details=Details(retries=RETRIES, judged=JUDGED),
)
WAITS = at(
    *done("preprocess", "train", "generate"),
    said(
        "judge",
        "waiting",
        message="OPENAI_API_KEY is not set",
        hint="export it, then: python jobs/judge.py /runs/tiny-0123abcd",
    ),
    train=TRAIN,
    details=Details(retries=RETRIES, judged=JUDGED, journals={("judge", 0): NO_KEY}),
)
HOURS = Hours.of("GPU-hours", {"work": 800_000_000, "steps_again": 20_000_000, "start": 30_000_000})
USED = Usage(
    stages=[
        StageUsage(
            stage="train",
            done=True,
            attempts=3,
            restarts={"preemption": 2},
            queue_s=5_400,
            requeue_s=1_300,
            allocated_s=26_600,
            longest_task_s=26_600,
            longest_attempt_s=8_200,
            limit_s=43_200,
            hours=HOURS,
            gpu_memory_gb=38.4,
            gpu_total_gb=85.0,
            steps_again=12,
        )
    ],
    totals=[HOURS],
    advice=[Advice(stage="train", text="used 19% of its time limit", field="cluster.train.time", value="04:00:00")],
)
SCORES = {"win_rate": 21.45, "interval": [18.6, 24.3], "n_total": 805}
FINISHED = at(
    *done(*PLAN.stage_names),
    train=TRAIN,
    details=Details(retries=RETRIES, judged=[model.model_copy(update={"final": SCORES}) for model in JUDGED]),
).model_copy(update={"usage": USED})
SILENT = at(
    *done("preprocess"),
    AT_WORK,
    QueueEntry(IDS["train"], 0, "RUNNING", "None", "2:22:27", "12:00:00", "", "n[1-4]"),
    *AFTER_TRAIN,
    train=TRAIN,
    as_of=NOW - 1800,
    problem="squeue failed: slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    details=Details(retries=RETRIES),
)
VANISHED = at(
    *done("preprocess"),
    AT_WORK,
    train=TRAIN,
    details=Details(retries=RETRIES, journals={("train", 0): PREEMPTED[:2]}),
)
"""On a cluster without accounts nobody knows why a job is gone that has not said a word."""
LOCAL = state_of(*done("preprocess"), AT_WORK, local=True, train=TRAIN, now=NOW, details=Details(retries=RETRIES))

SITUATIONS: dict[str, tuple[RunState, LogView]] = {
    "pending": (PENDING, NO_LOG),
    "running": (RUNNING, LOG),
    "limit-first": (LIMIT_FIRST, LOG),
    "requeued": (REQUEUED, LOG),
    "back-again": (BACK_AGAIN, LOG),
    "failed": (FAILED, LogView("logs/train/102_0/3.err", ["Traceback (most recent call last):", OOM], range(8))),
    "judging": (JUDGING, NO_LOG),
    "waits": (WAITS, NO_LOG),
    "finished": (FINISHED, NO_LOG),
    "controller-down": (SILENT, LOG),
    "no-accounts": (VANISHED, LOG),
    "local": (LOCAL, LOG),
}
ALONE = Place("run", alone=True)


def many(num: int) -> list[RunState]:
    """So many runs, in all situations."""
    states = [state for state, _ in SITUATIONS.values()]
    return [
        states[number % len(states)].model_copy(update={"run_dir": f"/runs/llama-7b-lr{number}e-6-0123{number:04d}"})
        for number in range(num)
    ]
