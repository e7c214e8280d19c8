"""Memory of ranks while a model is loaded, sharded and gathered: python -m tests.benchmarks.load_memory MODEL

Beside what hpcsft does (rank 0 reads, the others wait for its weights) stands what a rank costs that reads for itself.
Counted is the highest resident memory of each process above what it had after its imports, in copies of the model as it
is trained; pages of mapped files count too. There is no optimizer, so that nothing but weights is counted, and the C
library gives back at once what is freed (MALLOC_MMAP_THRESHOLD_), which otherwise it keeps for the next to ask.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 900


def resident_bytes(key: str) -> int:
    """VmRSS or VmHWM of this process (proc(5))."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def peak_of(act: Callable[[], Any], base: int) -> tuple[Any, int]:
    """What `act` returns, and the highest resident memory above `base` bytes meanwhile."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    result = act()
    return result, resident_bytes("VmHWM") - base


def one_rank(path: str, zero_stage: int, alone: bool) -> None:
    """Load, shard and gather; prints the peaks in bytes. With `alone` every rank reads for itself."""
    import deepspeed
    import torch

    from hpcsft.models.export import gather_state
    from hpcsft.models.load import load_for_training
    from hpcsft.spec import parse_spec
    from hpcsft.train import engine
    from hpcsft.train.deepspeed_config import deepspeed_config
    from hpcsft.train.distributed import Ranks

    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), torch.device("cpu"))
    batch = {"global_batch_size": ranks.world_size, "micro_batch_size": 1}
    values = {"model": {"path": path}, "data": {"train": ["none"]}, "train": {"zero_stage": zero_stage, **batch}}
    spec = parse_spec({"name": "memory", **values})
    config = deepspeed_config(spec, 1, on_gpu=False)

    def load() -> Any:
        if alone:
            model = load_for_training(path, spec.model.dtype, spec.model.attention)
        else:
            model = engine.build_model(spec, ranks)
        engine.distribute(model, spec, config, ranks.device)
        for parameter in model.parameters() if zero_stage < 3 else ():
            torch.distributed.broadcast(parameter.data, 0)  # as DeepSpeed does then
        return model

    base = resident_bytes("VmRSS")
    model, loading = peak_of(load, base)
    left = resident_bytes("VmRSS") - base
    _, gathering = peak_of(lambda: gather_state(model, zero_stage, keep=ranks.leader), base)
    size = sum(getattr(p, "ds_numel", p.numel()) * p.element_size() for p in model.parameters())
    found = {"rank": ranks.rank, "loading": loading, "left": left, "gathering": gathering, "model": size}
    print(json.dumps(found), flush=True)
    torch.distributed.barrier()
    os._exit(0)


def measure(path: str, ranks: int, zero_stage: int, alone: bool) -> list[dict[str, int]]:
    """What each of so many ranks found."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "tests.benchmarks.load_memory", path, "--zero", str(zero_stage)]
    command += ["--alone"] * alone + ["--rank"]
    children = []
    for rank in range(ranks):
        task = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "DS_ACCELERATOR": "cpu"}
        plain = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONWARNINGS": "ignore"}
        env = {**os.environ, **task, **plain, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        children.append(subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    try:
        outputs = [child.communicate(timeout=TIMEOUT_S)[0] for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    return [json.loads(output.strip().splitlines()[-1]) for output in outputs]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a model in Hugging Face format")
    parser.add_argument("--ranks", type=int, default=4, help="processes on this host (default: 4)")
    for hidden, options in {"--zero": {"type": int}, "--alone": {"action": "store_true"}}.items():
        parser.add_argument(hidden, help=argparse.SUPPRESS, **options)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        one_rank(arguments.model, arguments.zero, arguments.alone)
    print(f"copies of the model, {arguments.ranks} ranks: rank 0 | the most of another | all together")
    for zero_stage in (1, 3):
        for alone in (False, True):
            found = sorted(measure(arguments.model, arguments.ranks, zero_stage, alone), key=lambda own: own["rank"])
            print(f"ZeRO {zero_stage}, {'each reads' if alone else 'rank 0 reads'}, {found[0]['model'] / 1e6:.0f} MB")
            for moment in ("loading", "left", "gathering"):
                shares = [own[moment] / own["model"] for own in found]
                most = max(shares[1:], default=0)
                print(f"  {moment:10} {shares[0]:.2f} | {most:.2f} | {sum(shares):.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
