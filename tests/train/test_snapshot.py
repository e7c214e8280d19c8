"""Snapshots: what is written later is the state of now, file for file as DeepSpeed's own engine would have written it.

Run as a module this file is one rank of `test_deepspeed_resumes_bit_identically`.
"""

from __future__ import annotations

import gc
import hashlib
import os
import resource
import socket
import subprocess
import sys
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcsft.attempt.ending import ends_at_once
from hpcsft.train.host_memory import available_bytes, fits
from hpcsft.train.snapshot import PIECE_BYTES, SnapshotEngine, snapshot_bytes

TIMEOUT_S = 240


class Scaler:
    """Stands for the objects that DeepSpeed puts beside the tensors."""

    def __init__(self) -> None:
        self.scale = 2.0
        self.history = [torch.ones(2)]


def make_state() -> dict[str, Any]:
    """One of everything that states hold: shared storages, views, attributes, several dtypes, mutable objects."""
    flat = torch.arange(1000, dtype=torch.float32)
    parameter = torch.nn.Parameter(torch.randn(3, 5))
    parameter.ds_id = 7
    tied = torch.randn(4, 4).bfloat16()
    return OrderedDict(
        parts=[flat[:10].view(2, 5), flat[10:20], flat[500:510]],
        matrix=(torch.randn(6, 8)[:, 2:4], torch.randn(3, 4).t()),
        parameter=parameter,
        tied={"embedding": tied, "head": tied, "row": tied[1]},
        empty=torch.empty(0, 3),
        scalar=torch.tensor(3.0, dtype=torch.float64),
        master=torch.ones(2, requires_grad=True),
        small=torch.tensor([1, 2, 3], dtype=torch.uint8)[1:],
        sparse=torch.eye(3).to_sparse(),
        conj=torch.view_as_complex(torch.randn(3, 2)).conj(),
        scaler=Scaler(),
        steps={"count": 5, "lr": [1e-3, 1e-4]},
        shape=torch.Size([2, 3]),
        dtype=torch.bfloat16,
    )


def assert_same(left: Any, right: Any, where: str = "state") -> None:
    """Equal to the last bit, in type and layout too."""
    assert type(left) is type(right), where
    if isinstance(left, torch.Tensor) and left.layout is torch.strided:
        for fact in ("dtype", "shape", "requires_grad"):
            assert getattr(left, fact) == getattr(right, fact), (where, fact)
        assert left.stride() == right.stride(), where
        left_bytes, right_bytes = (
            tensor.detach().resolve_conj().contiguous().flatten().view(torch.uint8) for tensor in (left, right)
        )
        assert torch.equal(left_bytes, right_bytes), where
    elif isinstance(left, torch.Tensor):
        assert_same(left.to_dense(), right.to_dense(), where)
    elif isinstance(left, dict):
        assert list(left) == list(right), where
        for key in left:
            assert_same(left[key], right[key], f"{where}[{key!r}]")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for number, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    elif not hasattr(left, "__dict__"):
        assert left == right, where
    if getattr(left, "__dict__", None) and not isinstance(left, type):
        assert_same(vars(left), vars(right), f"vars({where})")


def train_on(state: dict[str, Any]) -> None:
    """Change whatever can be changed in place."""
    with torch.no_grad():
        for tensor in (*state["parts"], *state["matrix"], state["parameter"], *state["tied"].values()):
            tensor.fill_(-1)
    state["scalar"].add_(1)
    state["scaler"].scale = 99.0
    state["scaler"].history[0].zero_()
    state["steps"]["count"] += 1
    state["steps"]["lr"].append(0)


def test_what_changes_after_save_does_not_reach_the_file(tmp_path: Path) -> None:
    """The file equals a plain torch.save at the moment of `save`, though all was changed before the writing."""
    engine = SnapshotEngine()
    for attempt in ("first", "buffers used again"):
        state = make_state()
        torch.save(state, tmp_path / "plain.pt")
        engine.begin(background=True)
        engine.save(state, str(tmp_path / "frozen.pt"))
        train_on(state)
        engine.start()
        engine.finish()
        frozen = engine.load(str(tmp_path / "frozen.pt"))
        assert_same(torch.load(tmp_path / "plain.pt", weights_only=False), frozen, attempt)
        assert frozen["tied"]["embedding"] is frozen["tied"]["head"]
        frozen["tied"]["head"].fill_(5)
        assert (frozen["tied"]["row"] == 5).all(), "what shared a storage still does"


@pytest.mark.parametrize("background", [False, True])
def test_facts_are_those_of_the_files(tmp_path: Path, background: bool) -> None:
    """A manifest made from them finds every damaged byte."""
    engine = SnapshotEngine()
    engine.begin(background)
    engine.save(make_state(), str(tmp_path / "a.pt"))
    engine.save({"pieces": torch.randn(5 * PIECE_BYTES // 8)}, str(tmp_path / "b.pt"))
    engine.start()
    facts = engine.finish()
    assert sorted(facts) == [str(tmp_path / "a.pt"), str(tmp_path / "b.pt")]
    for path, fact in facts.items():
        data = Path(path).read_bytes()
        assert (fact.size_bytes, fact.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert engine.finish() == {}


def test_a_view_brings_no_more_than_itself(tmp_path: Path) -> None:
    """ZeRO's partitions are views; the rest of their storage belongs to other files."""
    whole = torch.zeros(1_000_000)
    engine = SnapshotEngine()
    engine.begin(background=True)
    engine.save({"start": whole[:100], "end": whole[-100:]}, str(tmp_path / "views.pt"))
    engine.start()
    [facts] = engine.finish().values()
    assert facts.size_bytes < 10_000


def test_nothing_holds_the_live_tensors(tmp_path: Path) -> None:
    """Gradients and parameters that training frees must go, though a write is still pending."""
    engine = SnapshotEngine()
    state = make_state()
    gone = [weakref.ref(state["parameter"]), weakref.ref(state["parts"][0]), weakref.ref(state["scaler"])]
    engine.begin(background=True)
    engine.save(state, str(tmp_path / "state.pt"))
    del state
    gc.collect()
    assert [ref() for ref in gone] == [None, None, None]
    engine.start()
    engine.finish()


@pytest.mark.parametrize("background", [False, True])
def test_a_failed_write_is_told_and_the_next_succeeds(tmp_path: Path, background: bool) -> None:
    """Neither lost in the thread nor raised amid DeepSpeed's collectives, where it would hang the other ranks."""
    engine = SnapshotEngine()
    engine.begin(background)
    engine.save(make_state(), str(tmp_path / "removed" / "state.pt"))
    engine.save(make_state(), str(tmp_path / "later.pt"))
    engine.start()
    with pytest.raises(FileNotFoundError, match="removed"):
        engine.finish()
    assert not (tmp_path / "later.pt").exists()
    engine.begin(background)
    engine.save(make_state(), str(tmp_path / "state.pt"))
    engine.start()
    assert list(engine.finish()) == [str(tmp_path / "state.pt")]


@pytest.mark.parametrize("background", [False, True])
def test_a_write_that_stops_half_way_is_an_oserror(tmp_path: Path, background: bool) -> None:
    """Plain torch.save turns a full disk into `unexpected pos`, which tells nobody what happened."""
    engine = SnapshotEngine()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        engine.begin(background)
        engine.save({"big": torch.zeros(1_000_000)}, str(tmp_path / "state.pt"))
        engine.start()
        with pytest.raises(OSError, match=r"File too large: '.*state\.pt'"):
            engine.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def mapped_bytes() -> int:
    """The address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def test_without_memory_for_a_snapshot_the_file_is_written_at_once(tmp_path: Path) -> None:
    """A host that refuses the memory costs time, not the checkpoint."""
    state = {"big": torch.ones(50_000_000)}
    engine = SnapshotEngine()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    engine.begin(background=True)
    resource.setrlimit(resource.RLIMIT_AS, (mapped_bytes() + (100 << 20), limits[1]))
    try:
        engine.save(state, str(tmp_path / "state.pt"))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    state["big"].zero_()
    engine.start()
    assert list(engine.finish()) == [str(tmp_path / "state.pt")]
    assert engine.load(str(tmp_path / "state.pt"))["big"].sum() == 50_000_000


def test_reserved_memory_is_what_every_save_uses(tmp_path: Path) -> None:
    """To map and touch memory anew costs more than the copy; and a job that maps more at each save is killed."""
    engine = SnapshotEngine()
    engine.reserve(50 << 20)
    state = {"big": torch.ones(10_000_000)}
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped_bytes() + (20 << 20), limits[1]))
    try:
        for name in ("first.pt", "second.pt"):
            engine.begin(background=True)
            engine.save(state, str(tmp_path / name))
            assert not (tmp_path / name).exists(), "it was frozen, not written at once for want of memory"
            engine.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_an_ended_process_stops_writing(tmp_path: Path) -> None:
    """A failed attempt must end soon, not when a checkpoint that nobody will publish is on the disk."""
    code = f"""
import os, threading, torch
from hpcsft.train.snapshot import PIECE_BYTES, SnapshotEngine
pipe = {str(tmp_path / "pipe")!r}
os.mkfifo(pipe)
engine = SnapshotEngine()
engine.begin(background=True)
engine.save(torch.zeros(4 * PIECE_BYTES, dtype=torch.uint8), pipe)
engine.start()
reader = open(pipe, "rb", buffering=0)
reader.read(1)
def drain():
    threading.main_thread().join()
    read_bytes = 0
    while data := reader.read(1 << 20):
        read_bytes += len(data)
    os.write(1, b"stopped" if read_bytes < 2 * PIECE_BYTES else b"went on")
threading.Thread(target=drain).start()
raise SystemExit(3)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert ended.returncode == 3 and ended.stdout.endswith("stopped"), ended.stdout + ended.stderr


def write_group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.mark.parametrize(
    ("membership", "groups", "expected"),
    [
        ("0::/", {}, 8 << 30),
        ("0::/job/step", {"job": ("max", 5), "job/step": ("max", 5)}, 8 << 30),
        ("0::/job/step", {"job": (3 << 30, 2 << 30), "job/step": ("max", 5)}, (1 << 30) + 7),
        ("4:cpu,memory:/job/step", {"memory/job": (9 << 30, 4 << 30), "memory/job/step": (1 << 62, 5)}, (5 << 30) + 7),
        ("0::/job", {"job": (1 << 30, 2 << 30)}, 0),
    ],
)
def test_a_jobs_memory_limit_counts(
    tmp_path: Path, membership: str, groups: dict[str, tuple[str | int, int]], expected: int
) -> None:
    """Past the limit of its control group the kernel kills the job, however much memory the host has."""
    write_group(tmp_path / "proc", meminfo=f"MemTotal: 1 kB\nMemAvailable: {8 << 20} kB")
    write_group(tmp_path / "proc/self", cgroup=f"1:name=systemd:/\n{membership}")
    for name, (limit, usage) in groups.items():
        group = tmp_path / "cgroup" / name
        if name.startswith("memory/"):
            facts = {"memory__limit_in_bytes": str(limit), "memory__usage_in_bytes": str(usage)}
            write_group(group, **facts, memory__stat="inactive_file 1\ntotal_inactive_file 7")
        else:
            facts = {"memory__max": str(limit), "memory__current": str(usage)}
            write_group(group, **facts, memory__stat="anon 3\ninactive_file 7")
    assert available_bytes(tmp_path / "proc", tmp_path / "cgroup") == expected


def test_fits_asks_this_host() -> None:
    """A snapshot of no host's size is refused, a small one is not."""
    assert fits(1 << 20)
    assert not fits(1 << 50)


def test_deepspeed_resumes_bit_identically(tmp_path: Path) -> None:
    """Two ranks; files frozen before two more steps and written after them equal DeepSpeed's own of that moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(2):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = {**os.environ, **{name: str(value) for name, value in names.items()}, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.train.test_snapshot", str(tmp_path)]
        ranks.append(subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    try:
        outputs = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)


def make_engine(zero_stage: int, dtype: str, seed: int) -> Any:
    """A Llama of 2 layers with dropout under DeepSpeed."""
    import deepspeed
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=128, tie_word_embeddings=True, attention_dropout=0.1, **size))
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_clipping": 1.0,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 10, "warmup_max_lr": 1e-2}},
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_optimization": {"stage": zero_stage},
    }
    engine, *_ = deepspeed.initialize(model=model.train(), config=config, dist_init_required=False)
    return engine


def steps(engine: Any, numbers: range) -> list[str]:
    """Train on the batches of these numbers; the losses to the last bit."""
    losses = []
    for number in numbers:
        generator = torch.Generator().manual_seed(1000 * number + int(os.environ["RANK"]))
        input_ids = torch.randint(0, 128, (2, 16), generator=generator)
        loss = engine(input_ids=input_ids, labels=input_ids).loss
        engine.backward(loss)
        engine.step()
        losses.append(loss.item().hex())
    return losses


def one_rank(folder: Path) -> None:
    """What each rank of the test above does, in one process for all stages: to start it takes longest."""
    import deepspeed

    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    for zero_stage, dtype in [(0, "float32"), (1, "bfloat16"), (2, "float32"), (3, "bfloat16")]:
        print(f"ZeRO {zero_stage}", flush=True)
        check_stage(folder / str(zero_stage), zero_stage, dtype)
    torch.distributed.destroy_process_group()


def check_stage(folder: Path, zero_stage: int, dtype: str) -> None:
    """Save plainly and frozen at the same step, train on, write, compare, resume."""
    engine = make_engine(zero_stage, dtype, seed=0)
    steps(engine, range(3))
    engine.save_checkpoint(str(folder), tag="plain", save_latest=False)
    snapshot = engine.checkpoint_engine = SnapshotEngine()
    needed_bytes = snapshot_bytes(engine)
    random_state = torch.get_rng_state()
    snapshot.begin(background=True)
    engine.save_checkpoint(str(folder), tag="frozen", save_latest=False)
    took_bytes = sum(buffer.numel() for frozen in snapshot._frozen.values() for buffer in frozen.buffers)
    assert took_bytes <= needed_bytes <= 2 * took_bytes + (2 << 20), (took_bytes, needed_bytes)
    losses = steps(engine, range(3, 6))
    snapshot.start()
    mine = {Path(path).name for path in snapshot.finish()}
    torch.distributed.barrier()
    for name in mine:
        plain = torch.load(folder / "plain" / name, weights_only=False)
        assert_same(plain, torch.load(folder / "frozen" / name, weights_only=False), name)
    written: list[Any] = [None, None]
    torch.distributed.all_gather_object(written, mine)
    assert set().union(*written) == {path.name for path in (folder / "plain").iterdir()}

    resumed = make_engine(zero_stage, dtype, seed=1)
    resumed.checkpoint_engine = SnapshotEngine()
    resumed.load_checkpoint(str(folder), tag="frozen")
    torch.set_rng_state(random_state)
    assert steps(resumed, range(3, 6)) == losses


if __name__ == "__main__":
    with ends_at_once():
        one_rank(Path(sys.argv[1]))
