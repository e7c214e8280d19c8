"""The stage `train`: rows -> steps -> a validation loss and an export per epoch."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from hpcsft.attempt.heartbeat import Heartbeat
from hpcsft.data import preprocess
from hpcsft.data.batches import RowStore
from hpcsft.data.order import TrainingOrder
from hpcsft.data.shards import read_manifest
from hpcsft.errors import StageError, Stopped
from hpcsft.plan import split_batch
from hpcsft.stage import StageContext, require
from hpcsft.train.agreement import Agreement, Boundary
from hpcsft.train.checkpoints import Checkpointer, find_checkpoint, load_checkpoint
from hpcsft.train.deepspeed_config import deepspeed_config
from hpcsft.train.distributed import Ranks, start_ranks
from hpcsft.train.engine import build_engine, build_model
from hpcsft.train.epoch_end import EpochEnd
from hpcsft.train.meter import Meter, gpu_total_gb
from hpcsft.train.metrics import MetricsLog
from hpcsft.train.micro_batch import settle_parts
from hpcsft.train.nonfinite import NonfiniteGuard
from hpcsft.train.startup import Startup
from hpcsft.train.step import Step
from hpcsft.train.timelimit import TimeLimit


def train(context: StageContext) -> None:
    """The body of the stage."""
    startup = Startup()
    startup.done("imports")
    task, run = context.task, context.run
    hang_file = run.hang_file(context.stage.name, task.job_id, task.restart, task.rank)
    with Heartbeat.start(run.heartbeat, task.rank, hang_file, context.spec.train.hang_after_s) as heartbeat:
        on_gpu = context.stage.gpus_per_node > 0
        if on_gpu and torch.version.cuda is None and torch.version.hip is None:
            raise StageError(
                "the plan gives every rank a GPU, but the torch of this environment was built without CUDA",
                "install a CUDA build of torch, or set cluster.gpus_per_node to 0 to train on CPUs",
            )
        ranks = start_ranks(context, on_gpu)
        startup.done("checking the nodes")
        if ranks.leader:
            preprocess.finish(context)
        ranks.barrier()
        require(run.manifest, "preprocess")
        startup.done("waiting for all ranks")
        trainer = Trainer.start(context, ranks, on_gpu, heartbeat, startup)
        if ranks.leader:
            context.say(str(startup))
            context.journal.write("ready", phases_s=startup.phases_s, gpu_total_gb=gpu_total_gb(ranks.device))
        trainer.run()
        dist.destroy_process_group()  # not after a failure: it waits for all, and the cause would never be written


@dataclass
class Trainer:
    """One attempt at training."""

    context: StageContext
    ranks: Ranks
    heartbeat: Heartbeat
    engine: Any
    rows: RowStore
    order: TrainingOrder
    step: Step
    guard: NonfiniteGuard
    meter: Meter
    metrics: MetricsLog
    epoch_end: EpochEnd
    checkpoints: Checkpointer
    time_limit: TimeLimit | None
    """On rank 0 only."""
    agreement: Agreement
    first_step: int

    @classmethod
    def start(
        cls, context: StageContext, ranks: Ranks, on_gpu: bool, heartbeat: Heartbeat, startup: Startup
    ) -> Trainer:
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
        startup.done("rows")
        found = find_checkpoint(context, ranks)
        startup.done("looking at checkpoints")
        model = build_model(spec, ranks)
        startup.done("model")
        parts = ranks.from_leader(lambda: settle_parts(context, accumulation_steps))
        config = deepspeed_config(spec, accumulation_steps, on_gpu, parts, model.num_parameters(only_trainable=True))
        total_steps = spec.train.epoch_steps(order.steps_per_epoch) * spec.train.epochs
        engine = build_engine(model, spec, config, total_steps, ranks.device)
        startup.done("engine")
        first_step = load_checkpoint(engine, context, ranks, found, heartbeat)
        startup.done("loading the checkpoint")
        metrics = MetricsLog(run)
        config_json = engine.module.config.to_dict()
        checkpoints = Checkpointer(engine, context, ranks, before_publish=metrics.flush)
        time_limit = TimeLimit(context.task) if ranks.leader else None
        return cls(
            context,
            ranks,
            heartbeat,
            engine,
            rows,
            order,
            Step(engine, ranks, rows, parts),
            NonfiniteGuard(ranks, rows, spec.train.max_skipped_steps),
            Meter.of(ranks, rows, config_json, spec.model.dtype, spec.model.lora),
            metrics,
            EpochEnd(context, ranks, engine, RowStore(run.data, manifest, "validation"), parts, metrics, heartbeat),
            checkpoints,
            time_limit,
            Agreement(context, ranks, checkpoints, time_limit),
            first_step,
        )

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epoch_steps * self.context.spec.train.epochs

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps of one epoch."""
        return self.context.spec.train.epoch_steps(self.order.steps_per_epoch)

    def run(self) -> None:
        """Go on from the newest checkpoint, or from the beginning, to the end. Raises Stopped when asked to stop."""
        context, step = self.context, self.first_step
        self._tell_origin(step)
        context.progress(step, self.total_steps, "steps")
        if self.agreement.reach()[0].stop:
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
            epoch_ends = step % self.epoch_steps == 0
            if epoch_ends or boundary.due or step % context.spec.train.checkpoint.every_steps == 0:
                self.heartbeat.beat("save", step)
                self.checkpoints.save(step, background=True)
                saved_at_s = time.monotonic()
            self._finish_epoch(step)
        if self.checkpoints.pending:
            self.checkpoints.publish()
        self.metrics.close(finished=True)

    def _tell_origin(self, step: int) -> None:
        if self.ranks.leader:
            lost_steps = self.metrics.rewind(step)
            origin = f"resumed after step {step}" if step else "starting"
            self.context.say(
                f"{origin}: {self.total_steps} steps, {len(self.rows)} rows, {self.ranks.world_size} ranks"
            )
            self.context.journal.write("resumed", step=step, lost_steps=lost_steps)
            self.metrics.start_trackers(self.context.spec.train.trackers)
        self.checkpoints.newest = step
        self.guard.skipped = self.ranks.from_leader(self.metrics.skipped_steps)

    def _finish_epoch(self, step: int) -> None:
        epoch, rest = divmod(step, self.epoch_steps)
        if rest == 0 and self.checkpoints.pending:
            self.checkpoints.publish()  # nothing is lost then, whatever comes during validation and export
        if rest == 0 and not self.epoch_end.finish(epoch, step, lambda: self.agreement.reach()[0].stop):
            self._stop(step)

    def _stop(self, step: int) -> None:
        """Save, if this step is not saved yet, and leave."""
        self.heartbeat.beat("stop", step)
        if self.checkpoints.pending:
            self.checkpoints.publish()
        if step and self.checkpoints.newest != step:
            self.checkpoints.save(step, background=False)
        self.metrics.close(finished=False)
        told = "" if self.checkpoints.newest == step else ", which could not be saved"
        self.ranks.barrier()
        dist.destroy_process_group()
        by = self.context.notice.requested or "another rank was asked to"
        raise Stopped(f"stopped after step {step}{told}: {by}")

    def _step(self, step: int, saved_at_s: float) -> Boundary:
        """Optimizer step number `step`, counted from 0."""
        micro_batches = self.order.step(step)
        meter = self.meter.start(micro_batches)
        lr = self.engine.get_lr()[0]
        computed = self.step.compute(micro_batches, meter.supervised_tokens)
        slots = meter.slots(computed.data_s)
        boundary, (loss_sum, *slots) = self.agreement.reach(saved_at_s, computed.loss_sum, *slots)
        loss = loss_sum / meter.supervised_tokens
        self.guard.before_update(step + 1, loss, computed)
        updated = self.step.update()
        if not updated.applied:
            self.context.say(self.guard.after_update(step + 1, loss, computed, updated.grad_norm))
        if self.time_limit:
            measured = meter.finish(slots)
            self.time_limit.observe_step(measured.elapsed_s)
            self.metrics.step(
                step=step + 1,
                epoch=round((step + 1) / self.epoch_steps, 4),
                loss=_number(loss),
                lr=lr,
                grad_norm=_number(updated.grad_norm),
                **measured.values(),
                **({} if updated.applied else {"skipped": True}),
            )
        return boundary


def _number(value: float) -> float | None:
    """None where JSON has no number for it."""
    return value if math.isfinite(value) else None
