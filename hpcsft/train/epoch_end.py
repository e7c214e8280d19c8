"""What follows the last step of an epoch: the validation loss and the export of the model.

Both are made from a checkpoint that is there already, and not again when an earlier attempt has made them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hpcsft.attempt.heartbeat import Heartbeat
from hpcsft.data.batches import RowStore
from hpcsft.data.chat_template import chat_template
from hpcsft.data.order import TrainingOrder, divide
from hpcsft.data.trained_template import trained_template
from hpcsft.errors import StageError
from hpcsft.models.export import SpecialIds, gather_state, publish_folder, write_model
from hpcsft.models.loss import supervised_loss
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.models.tokenizer_export import save_tokenizer
from hpcsft.stage import StageContext
from hpcsft.train.distributed import Ranks
from hpcsft.train.metrics import MetricsLog


@dataclass
class EpochEnd:
    """Finishes epochs. All ranks call it alike."""

    context: StageContext
    ranks: Ranks
    engine: Any
    held_out: RowStore
    parts: int
    """Every micro batch is computed in so many parts."""
    metrics: MetricsLog
    heartbeat: Heartbeat

    def finish(self, epoch: int, step: int, asked_to_stop: Callable[[], bool]) -> bool:
        """Validate and export after `epoch`, which `step` ended; False if it was left for another attempt.

        Epoch 0 is the model as it came, which is validated and not exported.
        """
        run = self.context.run
        if not self.ranks.from_leader(lambda: self.metrics.validated(epoch)):
            loss = self._validation_loss(step, asked_to_stop)
            if loss is None:
                return False
            self._tell_loss(epoch, step, loss)
        if epoch and not self.ranks.from_leader(lambda: run.epoch_model(epoch).exists()):
            if asked_to_stop():
                return False
            self.heartbeat.beat("export", step)
            self._export(epoch)
        return True

    @torch.no_grad()
    def _validation_loss(self, step: int, asked_to_stop: Callable[[], bool]) -> float | None:
        """Mean cross-entropy per supervised token of the held-out rows (NaN without any); None when asked to stop.

        Raises StageError on all ranks if it is not finite.
        """
        spec = self.context.spec
        if not len(self.held_out):
            return float("nan")
        order = TrainingOrder(
            self.held_out.lengths,
            spec.train.micro_batch_size,
            spec.data.max_length,
            True,
            self.ranks.world_size,
            spec.seed,
        )
        self.engine.eval()
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.ranks.device)
        for round_ in range(order.steps_per_epoch):
            self.heartbeat.beat("validate", step)
            for micro_batch in self.ranks.share(order.step(round_)):
                for rows in divide(micro_batch, self.held_out.lengths, self.parts):
                    loss_sum += supervised_loss(self.engine, self.held_out.batch(rows).to(self.ranks.device))
            if asked_to_stop():
                return None
        self.engine.train()
        loss = self.ranks.sum(loss_sum.item())[0] / self.held_out.supervised()
        if not math.isfinite(loss):
            hint = "try model.dtype float32" if step else "is the model whole? try model.dtype float32"
            raise StageError(f"the validation loss after step {step} is {loss}", hint)
        return loss

    def _tell_loss(self, epoch: int, step: int, loss: float) -> None:
        if self.ranks.leader and len(self.held_out):
            name = f"epoch-{epoch}" if epoch else "base"
            supervised = self.held_out.supervised()
            self.metrics.validation(checkpoint=name, epoch=epoch, step=step, loss=loss, supervised_tokens=supervised)
            self.context.say(f"{name}: validation loss {loss:.4f}")

    def _export(self, epoch: int) -> None:
        context, model, spec = self.context, self.engine.module, self.context.spec
        adapter = spec.model.lora is not None and spec.model.lora.export == "adapter"
        state = gather_state(model, spec.train.zero_stage, keep=self.ranks.leader, trained_only=adapter)
        if self.ranks.leader:
            tokenizer = load_tokenizer(spec.model.path)
            template = trained_template(context.run, spec, tokenizer)
            served = chat_template(spec.data.template, template.source, tokenizer)
            ids = SpecialIds(tokenizer.bos_token_id, {template.end, tokenizer.eos_token_id})

            def write(folder: Path) -> None:
                write_model(model, state, spec.model, ids, folder)
                save_tokenizer(tokenizer, spec.model.path, folder, served, spec.model.export)

            folder = context.run.epoch_model(epoch)
            publish_folder(folder, write, context.task.token, context.fence.check)
            context.say(f"epoch {epoch}: wrote {folder}")
        self.ranks.barrier()
