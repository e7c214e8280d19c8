"""Guards what a real lack of memory does: the attempt ends on all ranks, the next one computes less at a time, and the
losses stay.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpcsft.attempt.journal import Row, all_rows
from hpcsft.records import read_json, read_jsonl
from hpcsft.rundir import RunDir
from tests import prepared
from tests.conftest import build_tiny_model, make_spec_values
from tests.launch.command import environment, launch
from tests.train.plain import train_plainly
from tests.train.ranks import TIMEOUT_S, new_run
from tests.waiting import wait_for

LIMITED_RANK = 1
NO_POOLS = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1000000"}
"""Has glibc give back at once what is freed: what a process has mapped is then what it needs."""


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory, conversations: list[list[str]]) -> dict[str, Any]:
    """Few weights and wide layers: what a micro batch needs is nearly all activations, of some 32 MB each."""
    folder = tmp_path_factory.mktemp("wide")
    model = build_tiny_model(folder / "model", conversations, intermediate_size=8192)
    data = folder / "dialogs.jsonl"
    rows = ({"id": str(number), "data": turns} for number, turns in enumerate(conversations[:240]))
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = make_spec_values(model, data, data, folder / "runs")
    del found["evaluate"]
    found["data"]["max_length"] = 512
    found["train"] |= {"epochs": 1, "global_batch_size": 4, "micro_batch_size": 2, "checkpoint": {"every_steps": 1}}
    # By default DeepSpeed maps 2 GB for its buckets, whatever the size of the model.
    found["train"]["deepspeed"] = {"zero_optimization": {"reduce_bucket_size": 10**6}}
    return found


@contextlib.contextmanager
def driven(run: RunDir) -> Iterator[subprocess.Popen[bytes]]:
    """The local driver that has begun to train a run whose rows are ready. Nothing of it outlives this."""
    command = [sys.executable, "-m", "hpcsft.cluster.local", str(run.path), "train"]
    own = {"env": environment() | NO_POOLS, "start_new_session": True}
    driver = subprocess.Popen(command, cwd=run.code, stderr=subprocess.DEVNULL, **own)
    try:
        yield driver
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()


def rows_of(run: RunDir, event: str, restart: int) -> list[Row]:
    """The journal's lines of one kind about one attempt."""
    return [row for row in all_rows(run, "train") if (row["event"], row["restart"]) == (event, restart)]


@dataclass
class AddressSpace:
    """What one rank had mapped while it trained, in bytes."""

    pid: int
    rest: int
    """The least: between two steps."""
    peak: int

    @classmethod
    def of(cls, run: RunDir) -> AddressSpace:
        """Of the rank that is to be limited, observed from its first step to its first checkpoint."""
        wait_for("the first step", lambda: rows_of(run, "resumed", restart=0), TIMEOUT_S)
        pid = read_json(run.heartbeat / f"{LIMITED_RANK}.json")["pid"]
        sizes = []

        def saved() -> bool:
            sizes.append(_of_process(pid, "VmSize"))
            return bool(rows_of(run, "saved", restart=0))

        wait_for("a checkpoint", saved, TIMEOUT_S)
        return cls(pid, min(sizes), _of_process(pid, "VmPeak"))

    def room_for(self, share: float) -> int:
        """A limit that leaves room for this share of a micro batch."""
        return int(self.rest + share * (self.peak - self.rest))


def _of_process(pid: int, key: str) -> int:
    found = re.search(rf"^{key}:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found, f"process {pid} has ended"
    return int(found[1]) * 1024


@dataclass
class Limited:
    """A run that has ended, and the memory of its first attempt."""

    run: RunDir
    memory: AddressSpace
    exit_status: int


@pytest.fixture(scope="module")
def limited(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Limited:
    """After a checkpoint one rank gets no more than three quarters of what a micro batch takes, and both ranks of every
    later attempt get no more either."""
    run = new_run(copy.deepcopy(values), tmp_path_factory.mktemp("limited"))
    with driven(run) as driver:
        memory = AddressSpace.of(run)
        limit = memory.room_for(0.75)
        for pid in (driver.pid, memory.pid):
            resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
        return Limited(run, memory, driver.wait(TIMEOUT_S))


def test_a_rank_without_memory_ends_the_attempt_and_the_next_one_computes_half_at_a_time(limited: Limited) -> None:
    run = limited.run
    assert limited.exit_status == 0
    (told,) = rows_of(run, "failed", restart=0)
    assert (told["rank"], told["cause"]) == (LIMITED_RANK, "out_of_memory")
    assert "can't allocate memory: you tried to allocate" in told["message"]
    (end,) = rows_of(run, "end", restart=0)
    assert (end["cause"], end["progressed"]) == ("out_of_memory", True)

    (halved,), (resumed,) = rows_of(run, "micro_batch", restart=1), rows_of(run, "resumed", restart=1)
    assert halved["parts"] == 2 and resumed["step"] >= 1
    log = (run.log_folder("train", end["job_id"], 1) / "0.out").read_text()
    assert "memory ran out before: " in log and "2 accumulation steps instead of 1; the global batch stays" in log
    assert [row["restart"] for row in all_rows(run, "train") if row["event"] == "start"] == [0, 1]


def test_the_losses_are_those_of_a_run_that_lacked_nothing(limited: Limited) -> None:
    (resumed,) = rows_of(limited.run, "resumed", restart=1)
    compared = resumed["step"] + 2
    rows, reference = list(read_jsonl(limited.run.metrics)), train_plainly(limited.run, compared)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) > compared
    assert [row["loss"] for row in rows[:compared]] == pytest.approx(reference.losses, rel=1e-5)
    assert [row["grad_norm"] for row in rows[:compared]] == pytest.approx(reference.grad_norms, rel=1e-5)


def test_without_a_smaller_micro_batch_the_run_ends_at_once_and_says_what_would_help(
    values: dict[str, Any], limited: Limited, tmp_path: Path
) -> None:
    """One row at a time is half of what was measured, and the limit leaves room for half of that."""
    single = copy.deepcopy(values) | {"runs_dir": str(tmp_path / "runs")}
    single["train"]["micro_batch_size"] = 1
    single["cluster"]["train"]["tasks_per_node"] = 1
    single["cluster"]["setup"] = [f"ulimit -v {limited.memory.room_for(0.25) // 1024}"]
    run = prepared.new_run(single)
    shutil.copytree(limited.run.data, run.data, dirs_exist_ok=True)
    with driven(run) as driver:
        assert driver.wait(TIMEOUT_S) == 1

    assert [row["cause"] for row in all_rows(run, "train") if row["event"] == "end"] == ["out_of_memory"]
    shown = " ".join(launch("monitor.py", run.path, "--once", cwd=tmp_path).stdout.split())
    assert "train failed: out of memory on the node" in shown and "ran out of memory: " in shown
    assert "(1 time; no smaller micro batch can be tried)" in shown
    assert "hint: ask for more memory" in shown and "--set cluster.train.mem_gb=" in shown
