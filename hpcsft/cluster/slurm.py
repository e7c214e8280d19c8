"""Stages as Slurm jobs, through submitit: parameters, script text, submission."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from hpcsft.cluster.task import StageTask
from hpcsft.errors import ClusterError, SubmissionError
from hpcsft.plan import StagePlan
from hpcsft.rundir import RunDir
from hpcsft.shell import quoted
from hpcsft.spec import ExperimentSpec

KEEP_SHELL = "trap : TERM  # Slurm's notice is for the ranks; this shell must live on to judge how they ended"

SILENCE = ("Unable to contact slurm controller", "Connection refused", "timed out", "configuration source")
"""What sbatch says when there is nobody to refuse anything."""


def slurm_here() -> bool:
    """Is there an sbatch on this machine?"""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def sbatch_parameters(spec: ExperimentSpec, run: RunDir, stage: StagePlan, after: Sequence[str]) -> dict[str, Any]:
    """submitit's parameters for one stage that waits for the jobs `after`."""
    extra: dict[str, Any] = {key: value for key, value in spec.cluster.sbatch.items() if value is not False}
    extra.update({"requeue": True, "chdir": str(run.code), "comment": f"hpcsft:{run.path.name}:{stage.name}"})
    if after:
        extra["dependency"] = "afterok:" + ":".join(after)
        extra["kill-on-invalid-dep"] = "yes"
    exports = [f"export {key}={quoted(value)}" for key, value in sorted(spec.cluster.env.items())]
    parameters = {
        "job_name": f"{spec.name}.{stage.name}",
        "partition": stage.partition,
        "account": stage.account,
        "qos": stage.qos,
        "constraint": stage.constraint,
        "time": stage.time_min,
        "nodes": stage.nodes,
        "ntasks_per_node": stage.tasks_per_node,
        "cpus_per_task": stage.cpus_per_task,
        "gpus_per_node": stage.gpus_per_node or None,
        "mem": f"{round(stage.mem_gb * 1024)}M" if stage.mem_gb else None,
        "array_parallelism": spec.cluster.array_parallelism,
        "signal_delay_s": stage.signal_s,
        "setup": [*spec.cluster.setup, *exports, *_before_srun(run)],
        "teardown": _after_srun(run, stage),
        "srun_args": ["--kill-on-bad-exit=1", *_srun_cpus(stage)],
        "additional_parameters": extra,
    }
    return {key: value for key, value in parameters.items() if value is not None} | {"wckey": None}


def _before_srun(run: RunDir) -> list[str]:
    """Whatever the user's setup did: this shell lives on, and the code is the run's own."""
    return [f"cd {quoted(str(run.code))}", "set +e", KEEP_SHELL]


def _after_srun(run: RunDir, stage: StagePlan) -> list[str]:
    """The end of the batch script: what the end of srun means, and whether the job goes back into the queue."""
    judge = f"{quoted(sys.executable)} -m hpcsft.attempt.after_srun {quoted(str(run.path))} {stage.name}"
    return ["status=$?", f"{judge} $status", "exit $?"]


def _srun_cpus(stage: StagePlan) -> list[str]:
    """Since 22.05 srun no longer takes --cpus-per-task over from sbatch."""
    return [f"--cpus-per-task={stage.cpus_per_task}"] if stage.cpus_per_task else []


def render_script(spec: ExperimentSpec, run: RunDir, stage: StagePlan, after: Sequence[str]) -> str:
    """The batch script that submitit will hand to sbatch. Needs no Slurm."""
    from submitit.slurm.slurm import _make_sbatch_string

    folder = run.submitit / stage.name
    command = f"{quoted(sys.executable)} -u -m submitit.core._submit {quoted(str(folder))}"
    map_count = stage.tasks if stage.tasks > 1 else None
    return _make_sbatch_string(command, folder, map_count=map_count, **sbatch_parameters(spec, run, stage, after))


def submit_stage(spec: ExperimentSpec, run: RunDir, stage: StagePlan, after: Sequence[str]) -> str:
    """Submit one stage and return the id of its job or array. SubmissionError if Slurm refuses it."""
    import submitit

    with _clean_environment():
        try:
            executor = submitit.SlurmExecutor(folder=run.submitit / stage.name)
            executor.update_parameters(**sbatch_parameters(spec, run, stage, after))
            tasks = [StageTask(str(run.code), str(run.path), stage.name, str(index)) for index in range(stage.tasks)]
            if len(tasks) == 1:
                return executor.submit(tasks[0]).job_id
            with executor.batch():
                jobs = [executor.submit(task) for task in tasks]
            return jobs[0].job_id.split("_")[0]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise _refused(stage, str(error)) from None


def _refused(stage: StagePlan, text: str) -> SubmissionError | ClusterError:
    lines = [line.strip() for line in text.splitlines() if "sbatch: error" in line or "rror:" in line]
    reason = "; ".join(line.removeprefix("sbatch: error: ") for line in lines) or text.strip()
    if any(sign in text for sign in SILENCE):
        return ClusterError(f"Slurm does not answer: {reason}", "try again when `squeue` answers")
    hint = f"look at cluster.{stage.name} and cluster in the spec; `sinfo` shows what this cluster has"
    return SubmissionError(f"Slurm refused the stage {stage.name}: {reason}", hint)


@contextlib.contextmanager
def _clean_environment() -> Iterator[None]:
    """Without the SLURM_* and SBATCH_* of a job that we may be in: they would change the new job."""
    kept = dict(os.environ)
    for name in kept:
        if name.startswith(("SLURM_", "SBATCH_", "SRUN_")) and name != "SLURM_CONF":
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
