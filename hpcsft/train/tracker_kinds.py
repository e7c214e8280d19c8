"""What shows rows of metrics.jsonl to people: TensorBoard and W&B. Their packages are loaded when one is made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.train.trackers import FINISHED, STOPPED

SHOWN_SECTIONS = ("name", "seed", "model", "data", "train")
"""Of the spec, what W&B is told: no environment variable, shell line or address, which may hold a secret."""

Row = dict[str, Any]


class Tracker(Protocol):
    """What shows rows to people."""

    def show(self, kind: str, row: Row) -> None:
        """A row of metrics.jsonl (kind "train") or validation.jsonl ("validation")."""

    def flush(self) -> None:
        """Let it be seen."""

    def close(self, end: str) -> None:
        """FINISHED, STOPPED or FAILED."""


def numbers(kind: str, row: Row) -> dict[str, float]:
    """What of a row can be drawn, by its name in a tracker: train/loss, validation/loss, ..."""
    drawn = {key: value for key, value in row.items() if isinstance(value, int | float) and key != "step"}
    return {f"{kind}/{key}": value for key, value in drawn.items()}


def seconds(row: Row) -> float:
    """When the row was written, in seconds since 1970."""
    return datetime.fromisoformat(row["time"]).timestamp()


class TensorBoard:
    """RUN_DIR/tensorboard. Written with TensorBoard's own writer, which is torch's too, but needs no torch."""

    def __init__(self, run: RunDir):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        folder = run.tensorboard
        folder.mkdir(mode=0o700, exist_ok=True)
        for old in sorted(folder.glob("events.out.tfevents.*"))[:-1]:  # a TensorBoard may be reading the last one
            old.unlink()
        self._writer = EventFileWriter(str(folder))
        # Readers forget what came before: all of it comes again.
        self._writer.add_event(Event(step=0, session_log=SessionLog(status=SessionLog.START)))

    def show(self, kind: str, row: Row) -> None:
        values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in numbers(kind, row).items()]
        self._writer.add_event(
            self._event(wall_time=seconds(row), step=row["step"], summary=self._summary(value=values))
        )

    def flush(self) -> None:
        self._writer.flush()

    def close(self, end: str) -> None:
        self._writer.close()


class WandB:
    """RUN_DIR/wandb, offline unless WANDB_MODE says otherwise; one run of W&B for all attempts.

    An offline folder holds the whole run: parts of one run in several folders are joined by the newer versions of
    `wandb sync` only. Online the run is resumed, and sent what the server does not know.
    """

    def __init__(self, run: RunDir):
        os.environ.pop("WANDB_SERVICE", None)  # of a session that submitted this job
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it goes over the network in offline mode too
        import wandb

        folder = run.wandb
        folder.mkdir(mode=0o700, exist_ok=True)
        earlier = sorted(folder.glob("offline-run-*"))
        for old in earlier[:-1]:
            shutil.rmtree(old, ignore_errors=True)
        self._superseded = earlier[-1:]
        spec = read_json(run.spec)
        wished = {
            "console": "off",
            "disable_code": True,
            "disable_git": True,
            "save_code": False,
            "silent": True,
            "x_disable_machine_info": True,  # no threads that measure, no list of the machine's parts
            "x_disable_stats": True,
            "x_save_requirements": False,
            "x_transaction_log_flush_interval": 1.0,  # else a kill costs the last 15 s
        }
        known = wandb.Settings.model_fields
        self._run = wandb.init(
            project=spec["train"]["wandb_project"],
            id=run.path.name[-64:],  # NAME-HASH8
            name=run.path.name,
            dir=run.path,
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            config={section: spec[section] for section in SHOWN_SECTIONS},
            settings=wandb.Settings(**{name: value for name, value in wished.items() if name in known}),
        )
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self._known_step = self._run.summary.get("step", -1) if self._run.resumed else -1

    def show(self, kind: str, row: Row) -> None:
        if row["step"] > self._known_step or (kind == "validation" and row["step"] == self._known_step):
            self._run.log({"step": row["step"], **numbers(kind, row), "_timestamp": seconds(row)})

    def flush(self) -> None:
        """W&B's service does so by itself."""

    def close(self, end: str) -> None:
        if end == STOPPED:
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if end == FINISHED else 1)
        for old in self._superseded:
            shutil.rmtree(old, ignore_errors=True)


TRACKERS: dict[str, Callable[[RunDir], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}
