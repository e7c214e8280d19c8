"""Three groups of ranks, one after the other, train the same runs: 2 from the beginning, 1 and then 4 from checkpoints.

    python -m tests.train.universal_chain RUN_DIR ...    ->    RUN_DIR/found-{2,1,4}.json

The ranks are forked from one process, because to import everything takes longer than all that they do.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch

from hpcsft.attempt.identity import TaskIdentity
from hpcsft.errors import Stopped
from hpcsft.records import now, write_json
from hpcsft.rundir import RunDir
from hpcsft.stage import StageContext
from hpcsft.train import universal
from hpcsft.train.commit import Complete
from hpcsft.train.distributed import Ranks, start_ranks
from tests.prepared import context_of

STEPS, SAVES = 6, {"2": 2, "1": 4, "4": 6}
"""Steps in all, and the step after which the phase of so many ranks saves; the next phase goes on from there."""
PHASE_S, JOIN_S = 150, 20
"""How long a phase may take, and how much longer than its first rank the others may."""


def found_file(phase: str) -> str:
    """Where rank 0 of a phase leaves what it found, below the run directory."""
    return f"found-{phase}.json"


def marker(context: StageContext, world_size: int) -> Complete:
    """The marker of a checkpoint of step 2 that `world_size` ranks wrote."""
    stage = context.spec.train.zero_stage
    return Complete(step=2, world_size=world_size, zero_stage=stage, attempt="", time=now(), files={}).signed()


def build(context: StageContext, ranks: Ranks, elsewhere: bool) -> Any:
    """A fresh engine; `elsewhere` moves its weights, so that a load which changes nothing is seen."""
    import deepspeed
    import transformers

    from hpcsft.models.load import load_model
    from hpcsft.train.deepspeed_config import deepspeed_config

    spec = context.spec
    model = load_model(spec.model.path, spec.model.dtype)
    if elsewhere:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.5)
    config = deepspeed_config(spec, spec.train.global_batch_size // ranks.world_size, on_gpu=False)
    engine, *_ = deepspeed.initialize(
        model=model.train(),
        model_parameters=list(model.parameters()),
        config=config,
        lr_scheduler=lambda optimizer: transformers.get_scheduler("cosine", optimizer, 3, STEPS),
        dist_init_required=False,
    )
    return engine


def step(engine: Any, ranks: Ranks, number: int) -> float:
    """One optimizer step on rows that only `number` decides; the loss of the global batch."""
    generator = torch.Generator().manual_seed(number)
    rows = (torch.randint(0, 40, (8, 1), generator=generator) + 13 * torch.arange(24)) % 500
    total = 0.0
    for row in ranks.share(rows):
        loss = engine(input_ids=row[None], labels=row[None], use_cache=False).loss
        total += loss.item()
        engine.backward(loss)
        engine.step()
    return ranks.sum(total)[0] / len(rows)


def state(engine: Any) -> dict[str, Any]:
    """Every weight in both precisions, every moment, and the counters."""
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    found: dict[str, Any] = {
        "counters": (engine.global_steps, engine.global_samples, engine.skipped_steps),
        "schedule": (engine.get_lr(), engine.lr_scheduler.state_dict()),
        "rates": [group["lr"] for group in engine.basic_optimizer.param_groups],
    }
    for number, (name, parameter) in enumerate(engine.module.named_parameters()):
        if engine.zero_optimization_stage() == 0:
            moments = engine.basic_optimizer.state_dict()["state"][number]
            whole = {**moments, "weight": parameter}
        else:
            whole = {key: safe_get_full_optimizer_state(parameter, key) for key in ("exp_avg", "exp_avg_sq")}
            with deepspeed.zero.GatheredParameters([parameter]):
                whole |= {"master": safe_get_full_fp32_param(parameter), "weight": parameter}
                whole = {key: value.detach().clone() for key, value in whole.items()}
        found |= {f"{name} {key}": value.detach().clone() for key, value in whole.items()}
    return found


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The keys of two states under which not every bit is the same."""
    assert one.keys() == other.keys()
    return [key for key in one if not _same(one[key], other[key])]


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


def stopped_meanwhile(engine: Any, context: StageContext, ranks: Ranks, folder: Path, complete: Complete) -> bool:
    """Does a request to stop end the conversion?"""
    context.notice.request("SIGTERM")
    try:
        universal.load(engine, context, ranks, folder, complete)
    except Stopped:
        return True
    finally:
        context.notice.requested = None
    return False


def work(phase: str, run: RunDir, ranks: Ranks) -> None:
    """One case in one phase."""
    context = context_of(run, "train", task=TaskIdentity.from_environment())
    first, last = {"2": (0, STEPS), "1": (2, 4), "4": (4, 6)}[phase]
    engine = build(context, ranks, elsewhere=first > 0)
    found: dict[str, Any] = {"losses": []}
    if first:
        folder, complete = run.step_folder(first), marker(context, 2 if phase == "1" else 1)
        if phase == "1" and complete.zero_stage == 2:
            found["stopped"] = stopped_meanwhile(engine, context, ranks, folder, complete)
        universal.load(engine, context, ranks, folder, complete)
        saved = torch.load(folder.with_suffix(".pt"), weights_only=False)
        found["differ"] = differing(saved, state(engine))
    for number in range(first, last):
        found["losses"].append(step(engine, ranks, number))
        if number + 1 == SAVES[phase]:
            folder = run.step_folder(number + 1)
            client_state = universal.client_state(engine, context.spec.train.zero_stage)
            engine.save_checkpoint(str(folder.parent), tag=folder.name, client_state=client_state, save_latest=False)
            states = state(engine)
            if ranks.leader:
                torch.save(states, folder.with_suffix(".pt"))
                (folder / "rank-00000.pt").write_bytes(b"not DeepSpeed's")
            found["adam_steps"] = sorted({float(own["step"]) for own in engine.basic_optimizer.state.values()})
    ranks.barrier()
    if ranks.leader:
        found["left"] = [path.name for path in run.checkpoints.iterdir() if path.name.startswith(".")]
        write_json(run.path / found_file(phase), found)
    engine.destroy()


def rank_main(phase: str, rank: str, port: str, paths: list[str]) -> None:
    """One rank of a phase."""
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": phase, "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = port
    runs = [RunDir(path) for path in paths]
    ranks = start_ranks(context_of(runs[0], "train", task=TaskIdentity.from_environment()), on_gpu=False)
    for run in runs:
        work(phase, run, ranks)
    torch.distributed.destroy_process_group()


def main(paths: list[str]) -> int:
    """All phases; the number of ranks that failed or hung in the first phase that did not succeed."""
    import deepspeed  # noqa: F401 (before the fork)
    from transformers import LlamaForCausalLM  # noqa: F401

    for phase in SAVES:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        fork = multiprocessing.get_context("fork")
        ranks = [
            fork.Process(target=rank_main, args=(phase, str(rank), port, paths), daemon=True)
            for rank in range(int(phase))
        ]
        for rank in ranks:
            rank.start()
        multiprocessing.connection.wait([rank.sentinel for rank in ranks], PHASE_S)
        for rank in ranks:
            rank.join(JOIN_S)
        if failed := sum(rank.exitcode != 0 for rank in ranks):
            return failed  # the others are killed at exit, being daemons
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
