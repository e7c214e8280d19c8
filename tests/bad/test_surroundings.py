"""What a user is told when the cluster or the filesystem stands against a command, on a real Slurm and real mounts.

`HPCSFT_KEEP_WORDS=1 python -m pytest tests/bad` writes surroundings.txt anew; read the difference before you keep it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcsft.records import read_json, write_json
from hpcsft.rundir import RunDir
from tests.bad.place import KEEPS, Case, Place, keep, kept, sets, told_of
from tests.cluster.minislurm import MiniSlurm
from tests.prepared import new_run

pytestmark = pytest.mark.slurm

WORDS = Path(__file__).with_name("surroundings.txt")
PARTITIONS = {"short": "MaxTime=30 MaxNodes=1"}
SHORT = {"partition": "short", "tasks_per_node": 1, "time": 10}
NOBODY = 65534


@pytest.fixture(scope="module")
def partitions(slurm: MiniSlurm) -> Iterator[None]:
    """Further partitions, with limits."""
    for name, limits in PARTITIONS.items():
        slurm.run("scontrol", "create", f"PartitionName={name}", "Nodes=n[1-2]", *limits.split())
    yield
    for name in PARTITIONS:
        slurm.run("scontrol", "delete", f"PartitionName={name}")


@pytest.fixture
def mounted() -> Iterator[list[Path]]:
    """Whatever is mounted on these folders is taken away at the end."""
    folders: list[Path] = []
    yield folders
    for folder in folders:
        subprocess.run(["umount", "--lazy", folder], check=True)


def queued(slurm: MiniSlurm) -> set[str]:
    return set(slurm.run("squeue", "-h", "-o", "%A").stdout.split())


def small_filesystem(place: Place, options: str) -> None:
    folder = place.folder / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    place.mounted.append(folder)
    place.set("runs_dir", str(folder))


def full_filesystem(place: Place) -> None:
    small_filesystem(place, "size=64k")
    with open(place.folder / "small" / "filler", "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass


def read_only_filesystem(place: Place) -> None:
    small_filesystem(place, "size=1m,ro")


def silent_controller(place: Place) -> None:
    conf = Path(os.environ["SLURM_CONF"]).read_text()
    lines = ["SlurmctldPort=9" if line.startswith("SlurmctldPort") else line for line in conf.splitlines()]
    place.monkeypatch.setenv("SLURM_CONF", place.file("slurm.conf", "\n".join([*lines, "MessageTimeout=2"]) + "\n"))


def run_of(place: Place) -> RunDir:
    """The run directory that the spec names, as a submission has prepared it."""
    return new_run({**place.values, "runs_dir": str(place.folder / "runs")})


def of_another_user(place: Place) -> None:
    os.chown(run_of(place).path, NOBODY, NOBODY)


def linked(place: Place) -> None:
    path = run_of(place).path
    path.rename(place.folder / "elsewhere")
    path.symlink_to(place.folder / "elsewhere")


def edited(place: Place) -> None:
    run = run_of(place)
    write_json(run.spec, {**read_json(run.spec), "seed": 8})


def open_key_file(place: Place) -> None:
    path = place.file("key", "sk-proj-4f7a9b2c1d\n")
    os.chmod(path, 0o644)
    place.set("evaluate.judge", {"kind": "openai", "model": "m", "api_key_file": path})


def venv_without_packages(place: Place) -> None:
    python = place.folder / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nexec /usr/bin/python3 -I -S "$@"\n')
    python.chmod(0o755)
    place.set("cluster.venv", str(python.parents[1]))


CASES = [
    Case("no such partition", sets("cluster.partition", "lo")),
    Case("a time limit beyond the partition's", sets("cluster.train", SHORT | {"nodes": 1, "time": "02:00:00"})),
    Case("more nodes than the partition allows", sets("cluster.train", SHORT | {"nodes": 2})),
    Case("more nodes than there are", sets("cluster.train", {"nodes": 8, "tasks_per_node": 1})),
    Case("more GPUs than a node has", sets("cluster.train", {"gpus_per_node": 8})),
    Case("more CPUs than a node has", sets("cluster.train.cpus_per_task", 64)),
    Case("more memory than a node has", sets("cluster.train.mem_gb", 900)),
    Case("a feature that no node has", sets("cluster.constraint", "a100")),
    Case("an array that is too large", sets("cluster.preprocess.tasks", 5000)),
    Case("a reservation that does not exist", sets("cluster.sbatch", {"reservation": "tutorial"})),
    Case("nodes that do not exist", sets("cluster.sbatch", {"nodelist": "n9"})),
    Case("Slurm that does not answer", silent_controller),
    Case("a full filesystem", full_filesystem),
    Case("a read-only filesystem", read_only_filesystem),
    Case("a run of another user", of_another_user),
    Case("a run directory that is a link", linked),
    Case("a spec that was edited in the run directory", edited),
    Case("a key that others may read", open_key_file),
    Case("no such virtual environment", sets("cluster.venv", "venvs/none")),
    Case("a virtual environment without the packages", venv_without_packages),
    Case("no such container image", sets("cluster.container", {"runtime": "apptainer", "image": "images/none.sif"})),
    Case("a module that is a command", sets("cluster.modules", ["cuda; reboot"])),
    Case("a network interface that is a command", sets("cluster.network", {"interface": "ib0;reboot"})),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_bad_surroundings_are_told_and_nothing_is_lost(
    case: Case,
    spec_values: dict[str, Any],
    tmp_path: Path,
    slurm: MiniSlurm,
    partitions: None,
    mounted: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    train = {"nodes": 2, "tasks_per_node": 1}
    spec_values |= {"runs_dir": "runs", "cluster": {"kind": "slurm", "partition": "low", "time": 10, "train": train}}
    spec_values["train"]["global_batch_size"] = 64
    place = Place(folder, spec_values)
    place.mounted, place.monkeypatch = mounted, monkeypatch
    jobs = queued(slurm)
    text, before, after = told_of(case, place)
    assert "Traceback" not in text and text.startswith("error: ") and not text.endswith("exit 0\n")
    assert after == before
    monkeypatch.undo()
    assert queued(slurm) <= jobs
    if KEEPS:
        keep(WORDS, case.title, text)
    assert text == kept(WORDS)[case.title]


def test_the_kept_words_are_of_these_cases() -> None:
    assert sorted(kept(WORDS)) == sorted(case.title for case in CASES)
