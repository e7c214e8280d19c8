"""The stage `train`: rows -> steps -> a validation loss and an export per epoch.

Shapes are those of `data/batches.py`. The loss of an optimizer step is the mean over the supervised tokens of the whole
global batch: every rank knows the whole order of the rows, so that count needs no communication.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from hpcsft.attempt.heartbeat import Heartbeat
from hpcsft.data import preprocess
from hpcsft.data.batches import RowStore
from hpcsft.data.order import TrainingOrder
from hpcsft.data.shards import read_manifest
from hpcsft.errors import Fenced, StageError, Stopped
from hpcsft.models.loss import supervised_loss
from hpcsft.plan import split_batch
from hpcsft.stage import StageContext, require
from hpcsft.train.checkpoints import Checkpointer, find_checkpoint, load_checkpoint
from hpcsft.train.distributed import Ranks, start_ranks
from hpcsft.train.engine import build_engine
from hpcsft.train.epoch_end import EpochEnd
from hpcsft.train.metrics import MetricsLog
from hpcsft.train.timelimit import TimeLimit


def train(context: StageContext) -> None:
    """The body of the stage."""
    task, run = context.task, context.run
    hang_file = run.hang_file(context.stage.name, task.job_id, task.restart, task.rank)
    with Heartbeat.start(run.heartbeat, task.rank, hang_file, context.spec.train.hang_after_s) as heartbeat:
        if task.rank == 0:
            preprocess.finish(context)
        on_gpu = context.stage.gpus_per_node > 0
        if on_gpu and not torch.cuda.is_available():
            raise StageError(
                "the plan gives every rank a GPU, but torch sees none here",
                "does the job's environment have a CUDA build of torch? set gpus_per_node to 0 to train on CPUs",
            )
        ranks = start_ranks(context, on_gpu)
        ranks.barrier()
        require(run.manifest, "preprocess")
        Trainer.start(context, ranks, on_gpu, heartbeat).run()
        dist.destroy_process_group()  # not after a failure: it waits for all, and the cause would never be written


class Boundary(NamedTuple):
    """What all ranks agree on between two steps."""

    stop: bool
    """Was any of them asked to stop?"""
    due: bool
    """Has checkpoint.every_minutes passed?"""
    written: bool
    """Have all of them written their part of a pending checkpoint?"""


@dataclass
class Trainer:
    """One attempt at training."""

    context: StageContext
    ranks: Ranks
    heartbeat: Heartbeat
    engine: Any
    rows: RowStore
    order: TrainingOrder
    accumulation_steps: int
    metrics: MetricsLog
    epoch_end: EpochEnd
    checkpoints: Checkpointer
    time_limit: TimeLimit | None
    """On rank 0 only."""
    first_step: int

    @classmethod
    def start(cls, context: StageContext, ranks: Ranks, on_gpu: bool, heartbeat: Heartbeat) -> Trainer:
        """Load model and data, build the DeepSpeed engine and go back to the newest checkpoint."""
        spec, run = context.spec, context.run
        try:
            accumulation_steps = split_batch(
                spec.train.global_batch_size, spec.train.micro_batch_size, ranks.world_size
            )
        except ValueError as error:
            raise StageError(str(error)) from None
        manifest = read_manifest(run.manifest)
        rows = RowStore(run.data, manifest, "train")
        order = TrainingOrder(
            rows.lengths,
            spec.train.micro_batch_size,
            spec.data.max_length,
            spec.data.packing,
            per_step=spec.train.global_batch_size // spec.train.micro_batch_size,
            seed=spec.seed,
        )
        found = find_checkpoint(context, ranks)
        engine = build_engine(spec, ranks, accumulation_steps, order.steps_per_epoch * spec.train.epochs, on_gpu)
        first_step = load_checkpoint(engine, context, ranks, found, heartbeat)
        metrics = MetricsLog(run)
        return cls(
            context,
            ranks,
            heartbeat,
            engine,
            rows,
            order,
            accumulation_steps,
            metrics,
            EpochEnd(context, ranks, engine, RowStore(run.data, manifest, "validation"), metrics, heartbeat),
            Checkpointer(engine, context, ranks, before_publish=metrics.flush),
            TimeLimit(context.task) if ranks.leader else None,
            first_step,
        )

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.order.steps_per_epoch * self.context.spec.train.epochs

    def run(self) -> None:
        """Go on from the newest checkpoint, or from the beginning, to the end. Raises Stopped when asked to stop."""
        context, step = self.context, self.first_step
        self._tell_origin(step)
        context.progress(step, self.total_steps, "steps")
        if self._agree()[0].stop:
            self._stop(step)
        self._finish_epoch(step)
        saved_at_s = time.monotonic()
        while step < self.total_steps:
            self.heartbeat.beat("step", step + 1)
            boundary = self._step(step, saved_at_s)
            step += 1
            context.progress(step, self.total_steps, "steps")
            if boundary.written and self.checkpoints.pending:
                self.checkpoints.publish()
            if step == self.first_step + 1:
                self.checkpoints.reserve()
            if boundary.stop:
                self._stop(step)
            epoch_ends = step % self.order.steps_per_epoch == 0
            if epoch_ends or boundary.due or step % context.spec.train.checkpoint.every_steps == 0:
                self.heartbeat.beat("save", step)
                self.checkpoints.save(step, background=True)
                saved_at_s = time.monotonic()
            self._finish_epoch(step)
        if self.checkpoints.pending:
            self.checkpoints.publish()

    def _tell_origin(self, step: int) -> None:
        if self.ranks.leader:
            lost_steps = self.metrics.rewind(step)
            origin = f"resumed after step {step}" if step else "starting"
            self.context.say(
                f"{origin}: {self.total_steps} steps, {len(self.rows)} rows, {self.ranks.world_size} ranks"
            )
            self.context.journal.write("resumed", step=step, lost_steps=lost_steps)
        self.checkpoints.newest = step
        self.ranks.barrier()

    def _finish_epoch(self, step: int) -> None:
        epoch, rest = divmod(step, self.order.steps_per_epoch)
        if rest == 0 and self.checkpoints.pending:
            self.checkpoints.publish()  # nothing is lost then, whatever comes during validation and export
        if rest == 0 and not self.epoch_end.finish(epoch, step, lambda: self._agree()[0].stop):
            self._stop(step)

    def _stop(self, step: int) -> None:
        """Save, if this step is not saved yet, and leave."""
        self.heartbeat.beat("stop", step)
        if self.checkpoints.pending:
            self.checkpoints.publish()
        if step and self.checkpoints.newest != step:
            self.checkpoints.save(step, background=False)
        told = "" if self.checkpoints.newest == step else ", which could not be saved"
        self.ranks.barrier()
        dist.destroy_process_group()
        by = self.context.notice.requested or "another rank was asked to"
        raise Stopped(f"stopped after step {step}{told}: {by}")

    def _agree(self, saved_at_s: float = math.inf, loss_sum: float = 0.0) -> tuple[Boundary, float]:
        """The boundary that all ranks see alike, and `loss_sum` summed over them: one all-reduce for everything.

        Raises Fenced on all of them if a newer attempt has begun.
        """
        minutes = self.context.spec.train.checkpoint.every_minutes
        late = minutes is not None and time.monotonic() - saved_at_s >= minutes * 60
        if self.time_limit and self.time_limit.is_near(self.checkpoints.longest_s):
            self.context.notice.request("time limit")
        lost = self.ranks.leader and self.context.fence.taken_over()
        flags = (self.context.notice.requested is not None, late, not self.checkpoints.written, lost)
        stop, due, unwritten, fenced, loss_total = self.ranks.sum(*map(float, flags), loss_sum)
        if fenced:
            raise Fenced("a newer attempt has taken over", "nothing to do: Slurm has given this one up")
        return Boundary(stop > 0, due > 0, unwritten == 0), loss_total

    def _step(self, step: int, saved_at_s: float) -> Boundary:
        """Optimizer step number `step`, counted from 0."""
        started_s = time.perf_counter()
        micro_batches = self.order.step(step)
        supervised = sum(self.rows.supervised(rows) for rows in micro_batches)
        tokens = sum(self.rows.tokens(rows) for rows in micro_batches)
        # DeepSpeed averages over ranks and accumulation steps; undo that and divide by the tokens instead.
        scale = self.ranks.world_size * self.accumulation_steps / supervised
        lr = self.engine.get_lr()[0]
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.ranks.device)
        for rows in self.ranks.share(micro_batches):
            loss = supervised_loss(self.engine, *self.rows.batch(rows).to(self.ranks.device))
            loss_sum += loss.detach()
            self.engine.backward(loss * scale)
            self.engine.step()
        boundary, loss_total = self._agree(saved_at_s, loss_sum.item())
        loss = loss_total / supervised
        grad_norm = self.engine.get_global_grad_norm()
        # DeepSpeed passes over a step with non-finite gradients in silence, and the run would learn nothing.
        if not (math.isfinite(loss) and _is_finite(grad_norm) and self.engine.was_step_applied()):
            raise StageError(
                f"step {step + 1} is not finite: loss {loss}, gradient norm {grad_norm}",
                "a lower learning rate, warm-up or float32 usually cures it; the last checkpoint is from before",
            )
        if self.time_limit:
            elapsed_s = time.perf_counter() - started_s
            self.time_limit.observe_step(elapsed_s)
            self.metrics.step(
                step=step + 1,
                epoch=round((step + 1) / self.order.steps_per_epoch, 4),
                loss=loss,
                lr=lr,
                grad_norm=float(grad_norm) if grad_norm is not None else None,
                tokens=tokens,
                supervised_tokens=supervised,
                tokens_per_s=round(tokens / elapsed_s, 1),
            )
        return boundary


def _is_finite(grad_norm: Any) -> bool:
    """None, where DeepSpeed computes no norm, counts as finite."""
    return grad_norm is None or math.isfinite(float(grad_norm))
