"""Resuming on another number of ranks, through DeepSpeed's universal checkpoints.

    checkpoints/step-000200/               as N ranks wrote it: each has its part of the flat, padded states
    checkpoints/.universal-step-000200/    converted: every parameter whole, with its moments; loads on any number

ZeRO 0 divides no states among the ranks, so its checkpoints load on any number as they are. Others are converted on
rank 0 (`conversion.py`) while all ranks wait, and the converted folder is removed once all of them have loaded it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from deepspeed.checkpoint import constants

from hpcsft.errors import StageError, Stopped
from hpcsft.stage import StageContext
from hpcsft.train.base_model import load_learnt
from hpcsft.train.commit import CONVERTED, Complete
from hpcsft.train.conversion import Conversion, mapped_files
from hpcsft.train.deepspeed_config import why_impossible
from hpcsft.train.distributed import Ranks

Beat = Callable[[str, int], None]


def client_state(engine: Any, zero_stage: int) -> dict[str, Any]:
    """What engine.save_checkpoint(client_state=...) must be given for the checkpoint to be convertible."""
    own = hasattr(engine.module, constants.UNIVERSAL_CHECKPOINT_INFO)  # by tensor parallelism: not to be overwritten
    if zero_stage not in (1, 2) or own:
        return {}
    version = {constants.UNIVERSAL_CHECKPOINT_VERSION_KEY: constants.UNIVERSAL_CHECKPOINT_VERSION_VALUE}
    return {constants.UNIVERSAL_CHECKPOINT_INFO: version}


def load(
    engine: Any,
    context: StageContext,
    ranks: Ranks,
    folder: Path,
    complete: Complete,
    beat: Beat = lambda phase, step: None,
) -> None:
    """Load the checkpoint in `folder`, which another number of ranks wrote, into a fresh engine. All ranks call it.

    Weights, moments, counters and schedule come back to the bit. Every rank beats about once a second in phase
    "convert", then once in phase "start". Raises, on all ranks alike: StageError when it is impossible or DeepSpeed
    fails to convert; OSError when the disk is full; MemoryError when the conversion was killed; Stopped when any rank
    was asked to stop meanwhile.
    """
    if reason := why_impossible(context.spec):
        raise StageError(
            f"checkpoint {folder.name} was written by {complete.world_size} ranks, this job has {ranks.world_size}; "
            + reason,
            f"resume on {complete.world_size} ranks",
        )
    if complete.zero_stage == 0:
        load_states(engine, folder)
        return
    converted = folder.with_name(f"{CONVERTED}{folder.name}")
    _convert(context, ranks, folder, converted, complete, beat)
    beat("start", complete.step)
    engine._config.load_universal_checkpoint = True  # DeepSpeed asks for it at every load, and nowhere else
    try:
        with mapped_files():  # each rank opens the states of all ranks and copies its part
            load_states(engine, converted)
    finally:
        engine._config.load_universal_checkpoint = False
    _own_steps(engine.basic_optimizer)
    ranks.barrier()
    if ranks.leader:
        shutil.rmtree(converted, ignore_errors=True)


def load_states(engine: Any, folder: Path) -> None:
    """Load the checkpoint in `folder` as it is into a fresh engine. All ranks call it."""
    path, _ = engine.load_checkpoint(str(folder.parent), tag=folder.name, custom_load_fn=load_learnt)
    if path is None:
        raise StageError(f"DeepSpeed could not load the checkpoint {folder.name}", "the log above tells more")


def _own_steps(optimizer: torch.optim.Optimizer) -> None:
    """Give every state a step counter of its own, on the device where the optimizer wants it.

    DeepSpeed's loader for ZeRO 3 gives all sub groups the same tensor, which would then count up once per sub group;
    and it leaves the counters on the CPU, from where the kernels of a fused optimizer cannot read them.
    """
    on_device = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for parameter, state in optimizer.state.items():
        step = state.get("step")
        if torch.is_tensor(step):
            state["step"] = step.to(parameter.device if on_device else "cpu", copy=True)


def _convert(
    context: StageContext, ranks: Ranks, folder: Path, converted: Path, complete: Complete, beat: Beat
) -> None:
    """Return on all ranks when `converted` is there, or raise the same on all of them."""
    conversion = Conversion(folder, converted, complete.digest)
    if ranks.leader:
        context.say(f"converting {folder.name} from {complete.world_size} to {ranks.world_size} ranks")
    try:
        done = False
        while not done:
            beat("convert", complete.step)
            done, error = ranks.from_leader(lambda: _outcome(conversion.poll))
            if error:
                raise error
            if not done and not ranks.all_agree(context.notice.requested is None):
                raise Stopped(f"stopped while converting {folder.name}", "the next attempt begins it again")
    finally:
        if ranks.leader:
            conversion.end()


def _outcome(poll: Callable[[], bool]) -> tuple[bool, Exception | None]:
    """The error is told, not raised: the other ranks wait for an answer."""
    try:
        return poll(), None
    except Exception as error:
        return False, error
