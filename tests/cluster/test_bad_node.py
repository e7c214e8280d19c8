"""A node on which jobs cannot work, on a real Slurm: the attempt ends at once, and the job goes on without that node.

The site's TaskProlog gives the tasks on n1 a folder for temporary files in which nobody can write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcsft.records import read_jsonl
from hpcsft.rundir import RunDir
from tests import waiting
from tests.cluster.minislurm import MiniSlurm
from tests.launch.command import launch

pytestmark = pytest.mark.slurm

PROLOG = """#!/bin/sh
if [ "$SLURMD_NODENAME" = n1 ]; then echo "export TMPDIR=/sys"; else echo "export TMPDIR=/tmp"; fi
"""
TIMEOUT_S = 240


@pytest.fixture
def slurm_with_a_bad_node(tmp_path: Path, slurm: MiniSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[MiniSlurm]:
    """A Slurm of its own; `slurm` only tells whether there can be one."""
    prolog = tmp_path / "prolog.sh"
    prolog.write_text(PROLOG)
    prolog.chmod(0o755)
    with MiniSlurm(tmp_path / "slurm", extra={"TaskProlog": str(prolog)}) as cluster:
        monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
        yield cluster


def test_a_bad_node_is_named_and_excluded_and_the_job_goes_on(
    slurm_with_a_bad_node: MiniSlurm, spec_values: dict[str, Any], tmp_path: Path
) -> None:
    spec_values.update(evaluate=None)
    spec_values["train"].update(epochs=1, max_steps=2)
    train = {"nodes": 2, "tasks_per_node": 1}
    spec_values["cluster"] = {
        "kind": "slurm",
        "partition": "low",
        "time": "00:10:00",
        "cpus_per_task": 1,
        "train": train,
    }
    spec_values["cluster"]["sbatch"] = {"exclude": "n4"}
    (tmp_path / "spec.json").write_text(json.dumps(spec_values))
    done = launch("submit.py", "spec.json", "--json", "--stages", "preprocess,train", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = RunDir(json.loads(done.stdout)["run_dir"])

    def ended() -> str | None:
        status = run.read_status("train", 0, 1)
        return status.state if status and status.state in ("done", "failed") else None

    assert waiting.wait_for("the end of training", ended, TIMEOUT_S) == "done", run.read_status("train", 0, 1)
    rows = list(read_jsonl(run.journal_file("train", 0, 1)))
    assert [row["nodes"] for row in rows if row["event"] == "start"] == ["n[1-2]", "n[2-3]"]
    (unfit,) = [row["nodes"] for row in rows if row["event"] == "unfit"]
    assert unfit.keys() == {"n1"} and unfit["n1"].startswith("/sys takes no temporary files")
    (excluded,) = [row for row in rows if row["event"] == "excluded"]
    assert excluded["nodes"] == ["n4", "n1"] and "refused" not in excluded
    assert [(row["cause"], row["unfit"]) for row in rows if row["event"] == "end"] == [("bad_node", ["n1"])]
    job_id = run.read_submission().latest()["train"].job_id
    assert slurm_with_a_bad_node.job(job_id)["ExcNodeList"] == "n4,n1"
    assert "error: n1: /sys takes no temporary files" in (run.log_folder("train", job_id, 0) / "1.err").read_text()
    assert (run.epoch_model(1) / "model.safetensors").exists()
