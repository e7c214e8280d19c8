"""No secret leaves the stage that it is for, and others can read nothing of a run: a whole one on a real Slurm."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcsft.rundir import RunDir
from hpcsft.slurm_client import run_client
from tests.cluster.minislurm import MiniSlurm
from tests.evaluate.conftest import Endpoint, reply
from tests.launch.command import launch
from tests.waiting import wait_for

pytestmark = pytest.mark.slurm

TIMEOUT_S = 300
STAGES = ("preprocess", "train", "generate", "judge", "report")


def canary(name: str) -> str:
    """A secret that is written out nowhere, so not in the code either."""
    return "-".join(["canary", name, "9f" * 6])


NOBODYS = {
    "AWS_SECRET_ACCESS_KEY": canary("aws"),
    "HF_TOKEN": canary("hf"),
    "WANDB_API_KEY": canary("wandb"),
    "OPENAI_API_KEY": canary("openai"),
    "ftp_proxy": f"http://me:{canary('proxy')}@proxy:3128",
    "MY_NOTES": canary("notes"),
}
"""What no job is to see."""

KEY, HOOK = "MINE_FOR_JUDGING", "MY_HOOK"

CARELESS_CLIENT = """
class OpenAI:
    def __init__(self, api_key, **more):
        raise RuntimeError(f"cannot use {api_key!r}")
def Timeout(*values, **more):
    pass
"""
"""A package `openai` whose errors hold the key."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A judge that repeats the key in its refusals."""
    with Endpoint() as server:
        server.answer = lambda request: (401, {"error": {"message": f"no right to ask: {request['key']}"}})
        yield server


@pytest.fixture
def spec(slurm: MiniSlurm, spec_values: dict[str, Any], tmp_path: Path, endpoint: Endpoint) -> Path:
    """The tiny spec; each job's environment is kept in envs/, and the judge's client is careless."""
    for folder in ("envs", "careless"):
        (tmp_path / folder).mkdir()
    (tmp_path / "careless" / "openai.py").write_text(CARELESS_CLIENT)
    spec_values["evaluate"]["judge"] = {"base_url": endpoint.base_url, "api_key_env": KEY, "model": "judge"}
    spec_values["train"]["epochs"] = 1
    spec_values["notify"] = {"webhook": f"${HOOK}", "on": ["done"]}
    spec_values["cluster"] = {
        "kind": "slurm",
        "partition": "low",
        "time": "00:10:00",
        "cpus_per_task": 1,
        "train": {"nodes": 2, "tasks_per_node": 1},
        "setup": [
            f"env -0 > {tmp_path}/envs/$SLURM_JOB_NAME.$SLURM_JOB_ID",
            f"export PYTHONPATH={tmp_path}/careless",
        ],
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec_values))
    return tmp_path / "spec.json"


def wait_for_end(run: RunDir, said: list[str]) -> str:
    """The state of the run when nothing of it runs any more; what the monitor says is kept in `said`."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        done = launch("monitor.py", run.path, "--once", "--json", cwd=run.path)
        said += [done.stdout, done.stderr]
        if done.returncode != 101:
            return json.loads(done.stdout)["state"]
        assert time.monotonic() < deadline_s, done.stdout
        time.sleep(0.3)


def found_in(texts: dict[str, bytes], secret: str) -> list[str]:
    return [name for name, text in texts.items() if secret.encode() in text]


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def job_records() -> dict[str, bytes]:
    """Everything that Slurm tells of its jobs, batch scripts included."""
    records = {"scontrol show job": run_client("scontrol", "show", "job", "--details").encode()}
    for number in run_client("squeue", "--noheader", "--states=all", "--format=%A").split():
        script = subprocess.run(["scontrol", "write", "batch_script", number, "-"], capture_output=True)
        records[f"batch script {number}"] = script.stdout
    return records


def test_a_whole_run_tells_no_secret_and_is_private(
    spec: Path, slurm: MiniSlurm, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, hook, filed = canary("mine"), canary("hook"), canary("filed")
    for name, value in {**NOBODYS, KEY: mine, HOOK: f"{endpoint.address}/{hook}"}.items():
        monkeypatch.setenv(name, value)
    before = os.umask(0)  # the most generous: what is private then was made so
    try:
        submitted = launch("submit.py", spec, "--json", cwd=tmp_path)
    finally:
        os.umask(before)
    assert submitted.returncode == 0, submitted.stderr
    run, said = RunDir(json.loads(submitted.stdout)["run_dir"]), [submitted.stdout, submitted.stderr]

    assert wait_for_end(run, said) == "failed"
    log = "".join(path.read_text() for path in run.logs.glob("judge/*/0.err"))
    assert "RuntimeError: cannot use '[secret]'" in log and "Traceback" in log

    def resume(*overrides: str) -> None:
        done = launch("resume.py", run.path, *(w for each in overrides for w in ("--set", each)), cwd=tmp_path)
        said.extend([done.stdout, done.stderr])
        assert done.returncode == 0, done.stderr

    kept = f"cluster.setup={json.dumps([f'env -0 > {tmp_path}/envs/$SLURM_JOB_NAME.$SLURM_JOB_ID'])}"
    resume(kept)
    assert wait_for_end(run, said) == "waiting"
    assert f"refuses the key in {KEY}" in said[-2] and "no right to ask: Bearer [secret]" in said[-2]

    (tmp_path / "judge.key").write_text(filed)
    (tmp_path / "judge.key").chmod(0o600)
    endpoint.answer = lambda request: (200, reply(f"Output (a) says {request['key']}"))
    resume("evaluate.judge.api_key_env=null", f"evaluate.judge.api_key_file={tmp_path}/judge.key")
    assert wait_for_end(run, said) == "done"
    keys = {request["key"] for request in endpoint.requests if "/v1" in request["path"]}
    assert keys == {f"Bearer {mine}", f"Bearer {filed}"}
    wait_for("the webhook to be told", lambda: any(hook in each["path"] for each in endpoint.requests), TIMEOUT_S)

    texts = {**files_below(run.path), **job_records(), "what commands said": "\n".join(said).encode()}
    assert len(texts) > 100
    secrets = [*NOBODYS.values(), canary("proxy"), mine, hook, filed]
    assert {secret: places for secret in secrets if (places := found_in(texts, secret))} == {}

    jobs = files_below(tmp_path / "envs")
    by_stage = {stage: [text for name, text in jobs.items() if f".{stage}." in name] for stage in STAGES}
    assert all(by_stage.values())
    assert {secret: places for secret in (*NOBODYS.values(), filed) if (places := found_in(jobs, secret))} == {}
    assert {stage for stage, found in by_stage.items() if any(mine.encode() in text for text in found)} == {"judge"}
    assert sum(mine.encode() in text for text in by_stage["judge"]) == 2, "not where the key comes from a file"

    loose = {
        str(path): oct(bits)
        for path in [run.path, run.cache, *run.path.rglob("*"), *run.cache.rglob("*")]
        if (bits := stat.S_IMODE(path.lstat().st_mode)) & 0o077 and not path.is_symlink()
    }
    assert loose == {}
