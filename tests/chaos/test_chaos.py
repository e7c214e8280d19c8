"""The chaos in small: one run through a preemption of each kind, a lost node, a kill during a save and a cancel."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cluster_faults import NodeDown, Preempt
from tests.chaos.faults import Cancel, Fault, Kill, damage
from tests.chaos.harness import finish, inject_all
from tests.chaos.live import LiveRun
from tests.chaos.scene import Layout, Scene
from tests.chaos.schedule import KINDS, VARIANTS, draw_faults
from tests.chaos.verdict import differences, late_publishes
from tests.cluster.minislurm import MiniSlurm

FAULTS: list[Fault] = [Preempt("0"), NodeDown(), Kill("save"), Preempt("20+usr2"), Cancel("running")]
STEPS = 200


@pytest.fixture
def calm_after(slurm: MiniSlurm) -> Iterator[MiniSlurm]:
    """The cluster, which is idle and configured as before when the test is over, whatever came of it."""
    yield slurm
    slurm.reconfigure()
    slurm.run("scancel", "--me")
    slurm.wait_idle(60)


@pytest.mark.slurm
def test_a_run_through_chaos_ends_as_if_nothing_had_happened(calm_after: MiniSlurm, tmp_path: Path) -> None:
    scene = Scene(tmp_path, calm_after, STEPS, every_steps=10, layout=Layout(2, 1))
    scene.build()
    runs = []
    for name, faults in (("reference", []), ("chaos", FAULTS)):
        live = LiveRun(scene, scene.submit(name), random.Random(1))
        try:
            records = inject_all(live, faults, lambda record: None)
            finish(live)
        finally:
            live.close()
        assert [*live.problems, *live.watch.problems, *late_publishes(live.follower.journal)] == []
        runs.append(live.run)
    assert differences(*runs) == []
    assert [record.lost for record in records if record.noticed and record.fault.startswith("preempt")] == [0, 0]


def test_a_schedule_follows_from_its_seed_and_leaves_nothing_out() -> None:
    def names(seed: int, count: int) -> list[str]:
        return [fault.name for fault in draw_faults(random.Random(seed), count, KINDS)]

    everything = sum(map(len, VARIANTS.values()))
    assert names(1, 30) == names(1, 30) != names(2, 30)
    assert len(set(names(1, everything))) == everything
    assert {fault.kind for fault in draw_faults(random.Random(1), 20, ["zombie"])} == {"zombie"}


@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_damage_changes_one_file_as_it_says(tmp_path: Path, how: str) -> None:
    file = tmp_path / "states.pt"
    for seed in range(20):
        file.write_bytes(bytes(100))
        damage(file, how, random.Random(seed))
        found = file.read_bytes() if file.exists() else None
        if how == "delete":
            assert found is None
        elif how == "truncate":
            assert found is not None and len(found) < 100
        else:
            assert found is not None and len(found) == 100
            assert sum(byte.bit_count() for byte in found) == 1
