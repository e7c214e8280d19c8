"""The stage `train`: rows -> steps -> a validation loss and an export per epoch.

Shapes are those of `data/batches.py`. The loss of an optimizer step is the mean over the supervised tokens of the whole
global batch: every rank knows the whole order of the rows, so that count needs no communication.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
import transformers

from hpcsft.data import preprocess
from hpcsft.data.batches import RowStore
from hpcsft.data.packing import MicroBatch, TrainingOrder
from hpcsft.data.shards import read_manifest
from hpcsft.errors import StageError
from hpcsft.models.export import gather_state, write_model
from hpcsft.models.load import load_model, load_tokenizer
from hpcsft.models.loss import supervised_loss
from hpcsft.plan import split_batch
from hpcsft.stage import StageContext, require
from hpcsft.train.checkpoints import load_checkpoint, save_checkpoint
from hpcsft.train.deepspeed_config import deepspeed_config
from hpcsft.train.distributed import Ranks, start_ranks
from hpcsft.train.metrics import MetricsLog


def train(context: StageContext) -> None:
    """The body of the stage."""
    if context.task.rank == 0:
        preprocess.finish(context)
    on_gpu = context.stage.gpus_per_node > 0
    if on_gpu and not torch.cuda.is_available():
        raise StageError(
            "the plan gives every rank a GPU, but torch sees none here",
            "does the job's environment have a CUDA build of torch? set gpus_per_node to 0 to train on CPUs",
        )
    ranks = start_ranks(context, on_gpu)
    ranks.barrier()
    require(context.run.manifest, "preprocess")
    Trainer.start(context, ranks, on_gpu).run()
    dist.destroy_process_group()  # not after a failure: it waits for all ranks, and the cause would never be written


@dataclass
class Trainer:
    """One attempt at training."""

    context: StageContext
    ranks: Ranks
    engine: Any
    tokenizer: Any
    rows: RowStore
    held_out: RowStore
    order: TrainingOrder
    accumulation_steps: int
    metrics: MetricsLog

    @classmethod
    def start(cls, context: StageContext, ranks: Ranks, on_gpu: bool) -> Trainer:
        """Load model and data and build the DeepSpeed engine."""
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
        torch.manual_seed(spec.seed + ranks.rank)
        model = load_model(spec.model.path, spec.model.dtype, spec.model.attention)
        if spec.model.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        total_steps = order.steps_per_epoch * spec.train.epochs
        engine, *_ = deepspeed.initialize(
            model=model,
            model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
            config=deepspeed_config(spec, accumulation_steps, on_gpu),
            lr_scheduler=lambda optimizer: transformers.get_scheduler(
                "constant_with_warmup" if spec.train.scheduler == "constant" else spec.train.scheduler,
                optimizer,
                num_warmup_steps=round(spec.train.warmup_ratio * total_steps),
                num_training_steps=total_steps,
            ),
            dist_init_required=False,
        )
        tokenizer = load_tokenizer(spec.model.path)
        held_out = RowStore(run.data, manifest, "validation")
        metrics = MetricsLog(run)
        return cls(context, ranks, engine, tokenizer, rows, held_out, order, accumulation_steps, metrics)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.order.steps_per_epoch * self.context.spec.train.epochs

    def run(self) -> None:
        """Go on from the newest checkpoint, or from the beginning, to the end."""
        context, checkpoint = self.context, self.context.spec.train.checkpoint
        step = load_checkpoint(self.engine, context, self.ranks)
        if self.ranks.leader:
            self.metrics.rewind(step)
            origin = f"resumed after step {step}" if step else "starting"
            context.say(f"{origin}: {self.total_steps} steps, {len(self.rows)} rows, {self.ranks.world_size} ranks")
        self.ranks.barrier()
        context.progress(step, self.total_steps, "steps")
        if step == 0:
            self._validate(0, 0)
        saved_at_s = time.monotonic()
        while step < self.total_steps:
            self._step(step)
            step += 1
            context.progress(step, self.total_steps, "steps")
            epoch_ends = step % self.order.steps_per_epoch == 0
            if epoch_ends:
                self._finish_epoch(step // self.order.steps_per_epoch, step)
            due = step % checkpoint.every_steps == 0 or self._minutes_due(saved_at_s)
            if epoch_ends or due:
                save_checkpoint(self.engine, context, self.ranks, step)
                saved_at_s = time.monotonic()

    def _minutes_due(self, saved_at_s: float) -> bool:
        """Has any rank's clock passed checkpoint.every_minutes? Asked of all, so that all save together."""
        minutes = self.context.spec.train.checkpoint.every_minutes
        if minutes is None:
            return False
        return not self.ranks.all_agree(time.monotonic() - saved_at_s < minutes * 60)

    def _step(self, step: int) -> None:
        """Optimizer step number `step`, counted from 0."""
        started_s = time.perf_counter()
        micro_batches = self.order.step(step)
        supervised = sum(self.rows.supervised(rows) for rows in micro_batches)
        tokens = sum(self.rows.tokens(rows) for rows in micro_batches)
        # DeepSpeed averages over ranks and accumulation steps; undo that and divide by the tokens instead.
        scale = self.ranks.world_size * self.accumulation_steps / supervised
        lr = self.engine.get_lr()[0]
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.ranks.device)
        for rows in self._share(micro_batches):
            loss = supervised_loss(self.engine, *self.rows.batch(rows).to(self.ranks.device))
            loss_sum += loss.detach()
            self.engine.backward(loss * scale)
            self.engine.step()
        loss = self.ranks.sum(loss_sum.item())[0] / supervised
        grad_norm = self.engine.get_global_grad_norm()
        # DeepSpeed passes over a step with non-finite gradients in silence, and the run would learn nothing.
        if not (math.isfinite(loss) and _is_finite(grad_norm) and self.engine.was_step_applied()):
            raise StageError(
                f"step {step + 1} is not finite: loss {loss}, gradient norm {grad_norm}",
                "a lower learning rate, warm-up or float32 usually cures it; the last checkpoint is from before",
            )
        if self.ranks.leader:
            elapsed_s = time.perf_counter() - started_s
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

    def _share(self, micro_batches: list[MicroBatch]) -> list[MicroBatch]:
        """This rank's micro batches of a step."""
        return micro_batches[self.ranks.rank :: self.ranks.world_size]

    def _finish_epoch(self, epoch: int, step: int) -> None:
        self._validate(epoch, step)
        spec = self.context.spec
        state = gather_state(self.engine.module, spec.train.zero_stage, keep=self.ranks.leader)
        if self.ranks.leader:
            write_model(self.engine.module, state, self.tokenizer, self.context.run.epoch_model(epoch))
            self.context.say(f"epoch {epoch}: wrote {self.context.run.epoch_model(epoch)}")
        self.ranks.barrier()

    @torch.no_grad()
    def _validate(self, epoch: int, step: int) -> None:
        """Mean cross-entropy per supervised token of the held-out rows."""
        if not len(self.held_out):
            return
        spec = self.context.spec
        per_round = self.ranks.world_size
        order = TrainingOrder(
            self.held_out.lengths,
            spec.train.micro_batch_size,
            spec.data.max_length,
            True,
            per_round,
            spec.seed,
        )
        self.engine.eval()
        loss_sum = 0.0
        for round_ in range(order.steps_per_epoch):
            for rows in self._share(order.step(round_)):
                loss_sum += supervised_loss(self.engine, *self.held_out.batch(rows).to(self.ranks.device)).item()
        self.engine.train()
        supervised = sum(self.held_out.num_supervised)
        loss = self.ranks.sum(loss_sum)[0] / supervised
        if self.ranks.leader:
            name = f"epoch-{epoch}" if epoch else "base"
            self.metrics.validation(checkpoint=name, epoch=epoch, step=step, loss=loss, supervised_tokens=supervised)
            self.context.say(f"{name}: validation loss {loss:.4f}")


def _is_finite(grad_norm: Any) -> bool:
    """None, where DeepSpeed computes no norm, counts as finite."""
    return grad_norm is None or math.isfinite(float(grad_norm))
