"""A job id leads to its run also where nothing but Slurm knows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsft.cluster.submit import submit_experiment
from hpcsft.find_run import find
from hpcsft.plan import make_plan
from hpcsft.spec import parse_spec
from tests.cluster.minislurm import MiniSlurm
from tests.conftest import make_spec_values
from tests.launch.command import launch

pytestmark = pytest.mark.slurm


@pytest.fixture
def spec_values(tmp_path: Path) -> dict[str, Any]:
    """A spec whose jobs are held back: nothing of its inputs is read."""
    values = make_spec_values(Path("/models/tiny"), Path("/data/a.jsonl"), Path("/data/p.json"), tmp_path / "runs")
    cluster = {"kind": "slurm", "partition": "low", "time": "00:05:00", "cpus_per_task": 1, "sbatch": {"hold": True}}
    return values | {"cluster": cluster}


def test_slurm_tells_the_run_of_a_job_and_the_run_can_be_cancelled_by_it(
    spec_values: dict[str, Any], slurm: MiniSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    spec = parse_spec(spec_values)
    run, jobs, _ = submit_experiment(spec, make_plan(spec), None, [])
    ids = {job.stage: job.job_id for job in jobs}
    assert (tmp_path / "state" / "hpcsft" / "runs_dirs").read_text() == f"{tmp_path}/runs\n"

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (tmp_path / "state" / "hpcsft" / "runs_dirs").unlink()  # submitted from another home
    found = find(ids["train"])
    assert (found.run.path, found.stage, found.index, found.job_id) == (run.path, "train", None, ids["train"])
    found = find(f"{ids['generate']}_1")
    assert (found.run.path, found.stage, found.index, found.job_id) == (run.path, "generate", 1, ids["generate"])
    assert find(ids["generate"])[1:] == ("generate", None, ids["generate"])

    done = launch("cancel.py", ids["judge"], "--yes", cwd=elsewhere)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:2] for line in done.stdout.splitlines()[:-1]] == [[stage, "pending"] for stage in ids]
    for job_id in ids.values():
        assert slurm.job(job_id)["JobState"] == "CANCELLED"
    done = launch("logs.py", "999999", cwd=elsewhere)
    assert done.returncode == 102 and "no job 999999 of a run in runs/, nor in Slurm" in done.stderr
