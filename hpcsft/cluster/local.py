"""The same stages on this machine: a background driver runs them in order, each through submitit's local executor.

    python -m hpcsft.cluster.local RUN_DIR

The driver is a session of its own, so that neither ctrl-C nor the end of an ssh connection reaches it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from hpcsft.attempt.fence import Token
from hpcsft.attempt.outcome import Outcome
from hpcsft.cluster.environment import before_setup, interpreter
from hpcsft.cluster.job_environment import only_for_jobs
from hpcsft.cluster.task import StageTask
from hpcsft.errors import HpcsftError, report_errors
from hpcsft.notify.announce import announce
from hpcsft.plan import Plan, StagePlan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.secrets import guard_output
from hpcsft.spec import ExperimentSpec

JOB_PREFIX = "local-"
STOP_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.1


def start_driver(run: RunDir, stages: list[str]) -> str:
    """Start the driver in the background and return its job id, `local-PID`. HpcsftError for a container."""
    spec = ExperimentSpec.model_validate(read_json(run.spec))
    command = _driver_command(run, spec, stages)
    with open(run.logs / "driver.log", "ab") as log:
        process = subprocess.Popen(
            command,
            cwd=run.code,
            env={**os.environ, **spec.cluster.network_variables(), **spec.cluster.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return f"{JOB_PREFIX}{process.pid}"


def _driver_command(run: RunDir, spec: ExperimentSpec, stages: list[str]) -> list[str]:
    """The driver in the interpreter that the spec names, behind a shell that makes its environment and becomes it."""
    if spec.cluster.container:
        hint = "leave cluster.container out, and start hpcsft itself in the container"
        raise HpcsftError("cluster.container is for Slurm; the local cluster runs the stages as they are", hint)
    driver = [interpreter(spec), "-m", "hpcsft.cluster.local", str(run.path), *stages]
    stage = Plan.model_validate(read_json(run.plan)).stage(stages[0])
    job = f"SUBMITIT_EXECUTOR=local HPCSFT_JOB_ID={JOB_PREFIX}$$" + ("_0" if stage.tasks > 1 else "")
    lines = before_setup(spec, run, stage, job)
    return ["bash", "-c", "\n".join([*lines, 'exec "$@"']), "hpcsft", *driver] if lines else driver


def driver_alive(run: RunDir, job_id: str, host: str) -> bool | None:
    """Does the driver still run? None when it was started on another machine, where we cannot look."""
    if host != socket.gethostname():
        return None
    try:
        command = Path(f"/proc/{job_id.removeprefix(JOB_PREFIX)}/cmdline").read_bytes()
    except OSError:
        return False
    return os.fsencode(run.path) in command.split(b"\0")


def find_driver(run_dir: bytes) -> str | None:
    """The job id of a driver on this machine that works on `run_dir`, if there is one."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"hpcsft.cluster.local" in words and run_dir in words:
                return f"{JOB_PREFIX}{folder.name}"
    return None


def stop_driver(run: RunDir, job_id: str, host: str, path: str = "") -> None:
    """End the driver and everything that it started: SIGTERM, and SIGKILL for what is left after a while.

    `path` is where the run directory was when it began, if it has been moved since.

    Raises HpcsftError when it was started on another machine.
    """
    if host != socket.gethostname():
        raise HpcsftError(f"{run.path} runs on {host}, this is {socket.gethostname()}", f"cancel it on {host}")
    group, folder = int(job_id.removeprefix(JOB_PREFIX)), path or str(run.path)
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _members(folder, group):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        while _members(folder, group) and time.monotonic() < deadline_s:
            time.sleep(POLL_INTERVAL_S)


def _members(run_dir: str, group: int) -> list[int]:
    """Living processes of the driver's group that work on `run_dir`: its number may have been given away again."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, pgrp = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            command = (folder / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue  # it has ended in the meantime
        if int(pgrp) == group and state != "Z" and os.fsencode(run_dir) in command:
            found.append(int(folder.name))
    return found


def drive(run: RunDir, stages: list[str]) -> int:
    """Run `stages` in order and stop at the first that fails. Returns the exit status."""
    plan = Plan.model_validate(read_json(run.plan))
    spec = ExperimentSpec.model_validate(read_json(run.spec))
    for name in stages:
        stage = plan.stage(name)
        for index in range(stage.tasks):
            run.refuse_if_gone()
            if run.cancelled.exists() or not _run_task(run, spec, stage, index):
                return 1
    return 0


def _run_task(run: RunDir, spec: ExperimentSpec, stage: StagePlan, index: int) -> bool:
    """Run one task, again after what may be tried again. Was it done in the end?"""
    driver = f"{JOB_PREFIX}{os.getpid()}"  # one id for all of its stages
    job_id = f"{driver}_{index}" if stage.tasks > 1 else driver
    for restart in itertools.count():
        exit_status = _run_attempt(run, spec, stage, index, job_id, restart)
        outcome = Outcome(run, stage, index, Token(job_id=job_id, restart=restart))
        if outcome.is_done():
            return True
        verdict = outcome.settle(exit_status)
        if run.cancelled.exists():
            return False
        outcome.record(verdict)
        if not verdict.requeue:
            return False
    raise AssertionError("unreachable")


def _run_attempt(run: RunDir, spec: ExperimentSpec, stage: StagePlan, index: int, job_id: str, restart: int) -> int:
    """Run all ranks of one attempt through submitit; returns 1 if one raised an error, else 0."""
    import submitit
    from submitit.core.utils import FailedJobError

    os.environ.update(HPCSFT_JOB_ID=job_id, HPCSFT_RESTART=str(restart))
    executor = submitit.LocalExecutor(folder=run.submitit / stage.name)
    executor.update_parameters(
        tasks_per_node=stage.tasks_per_node,
        gpus_per_node=stage.gpus_per_node,
        timeout_min=stage.time_min,
        setup=tuple(spec.cluster.setup),
    )
    with only_for_jobs(spec, stage.name, spec.cluster.env):
        job = executor.submit(StageTask(str(run.code), str(run.path), stage.name, str(index)))
    while not job.done():
        time.sleep(POLL_INTERVAL_S)
    job._process.wait()  # 0 whatever became of the ranks
    ranks = [job.task(rank) for rank in range(stage.tasks_per_node)]
    ended = [rank for rank in ranks if rank.paths.result_pickle.exists()]  # who was killed leaves none
    return int(any(isinstance(rank.exception(), FailedJobError) for rank in ended))


def main(argv: list[str]) -> int:
    """Drive the run, and tell the user how it ended; returns the exit status."""
    guard_output()
    run = RunDir(argv[0]).for_writing()
    try:
        status = drive(run, argv[1:])
        announce(run)
    except OSError:
        run.refuse_if_gone()
        raise
    return status


if __name__ == "__main__":
    raise SystemExit(report_errors(main, sys.argv[1:]))
