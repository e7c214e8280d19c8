"""Stages as Slurm jobs, through submitit: parameters, script text, submission."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from hpcsft.cluster.environment import after_setup, before_setup, ranks_command, srun_options
from hpcsft.cluster.handover import lay_down, refuse_without_run, task_lines
from hpcsft.cluster.job_environment import only_for_jobs
from hpcsft.cluster.mounts import container_mounts
from hpcsft.cluster.task import StageTask
from hpcsft.errors import ClusterError, SubmissionError, UnclearError
from hpcsft.plan import StagePlan
from hpcsft.rundir import RunDir
from hpcsft.shell import quoted
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.base import safe_path

KEEP_SHELL = "trap : TERM  # Slurm's notice is for the ranks; this shell must live on to judge how they ended"

NOBODY_ASKED = ("controller (connect failure)", "Connection refused", "configuration source")
"""What sbatch says when it has reached nobody."""

BROKEN_OFF = (
    *("Unable to contact slurm controller", "timed out", "Zero Bytes", "Unexpected message", "Connection reset"),
    *("Transport endpoint", "Communication connection", "Communication shutdown", "Broken pipe"),
)
"""What sbatch says when it has lost the answer: the controller may have taken the job."""


def slurm_here() -> bool:
    """Is there an sbatch on this machine?"""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def sbatch_parameters(
    spec: ExperimentSpec, run: RunDir, stage: StagePlan, after: Sequence[str], mark: str = ""
) -> dict[str, Any]:
    """submitit's parameters for one stage that waits for the jobs `after`; by its `mark` the job can be found again."""
    _check_path(run)
    extra: dict[str, Any] = {key: value for key, value in spec.cluster.sbatch.items() if value is not False}
    comment = f"hpcsft:{run.path.name}:{stage.name}" + (f":{mark}" if mark else "")
    extra.update({"requeue": True, "chdir": str(run.code), "comment": comment})
    if after:
        extra["dependency"] = "afterok:" + ":".join(after)
        extra["kill-on-invalid-dep"] = "yes"
    mounts = container_mounts(spec, stage.name, os.environ)
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
        "setup": [
            refuse_without_run(run),
            *before_setup(spec, run, stage),
            *spec.cluster.setup,
            *_before_srun(run, stage, mark),
            *after_setup(spec, stage),
        ],
        "teardown": _after_srun(run, stage),
        "srun_args": ["--kill-on-bad-exit=1", *_srun_cpus(stage), *srun_options(spec, run, stage, mounts)],
        "additional_parameters": extra,
    }
    return {key: value for key, value in parameters.items() if value is not None} | {"wckey": None}


def _check_path(run: RunDir) -> None:
    """SubmissionError if the run was moved to a path that #SBATCH lines cannot hold; `runs_dir` never is such a one."""
    try:
        safe_path(str(run.path))
    except ValueError as error:
        hint = "rename the folders on the way to it, or submit its spec anew with another runs_dir"
        raise SubmissionError(f"{str(run.path)!r} cannot be the path of a run: {error}", hint) from None


def _before_srun(run: RunDir, stage: StagePlan, mark: str) -> list[str]:
    """Whatever the user's setup did: this shell lives on, and the code is the run's own."""
    return ["set +e", *task_lines(run, stage.name, mark), KEEP_SHELL]


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
    command = f"{_python(spec, run, stage)} -u -m submitit.core._submit {quoted(folder)}"
    map_count = stage.tasks if stage.tasks > 1 else None
    return _make_sbatch_string(command, folder, map_count=map_count, **sbatch_parameters(spec, run, stage, after))


def _python(spec: ExperimentSpec, run: RunDir, stage: StagePlan) -> str:
    return ranks_command(spec, run, stage, container_mounts(spec, stage.name, os.environ))


def submit_stage(spec: ExperimentSpec, run: RunDir, stage: StagePlan, after: Sequence[str], mark: str = "") -> str:
    """Submit one stage and return the id of its job or array.

    SubmissionError if Slurm refuses it, ClusterError if it was not there to be asked, UnclearError if sbatch or the
    filesystem failed in a way that leaves open whether it has taken the job. OSError before anything was asked.
    """
    import submitit

    tasks = [StageTask(str(run.code), str(run.path), stage.name, str(index)) for index in range(stage.tasks)]
    lay_down(run, tasks, stage.time_min)

    with only_for_jobs(spec, stage.name):
        try:
            executor = submitit.SlurmExecutor(folder=run.submitit / stage.name, python=_python(spec, run, stage))
            executor.update_parameters(**sbatch_parameters(spec, run, stage, after, mark))
            if len(tasks) == 1:
                return executor.submit(tasks[0]).job_id
            with executor.batch():
                jobs = [executor.submit(task) for task in tasks]
            return jobs[0].job_id.split("_")[0]
        except submitit.core.utils.FailedJobError as error:
            raise refusal(stage, str(error)) from None
        except (submitit.core.utils.FailedSubmissionError, OSError) as error:
            raise UnclearError(f"the submission of {stage.name} broke off: {error}") from None


REFUSING = ("rror:", "unrecognized option", "invalid option", "requires an argument", "Invalid --")
"""What a line of sbatch has in it that refuses a job."""


def refusal(stage: StagePlan, text: str) -> SubmissionError | ClusterError:
    """What it means that sbatch failed and printed `text`. Pure."""
    lines = [line.strip() for line in text.splitlines() if any(sign in line for sign in REFUSING)]
    reason = "; ".join(line.removeprefix("sbatch: error: ") for line in lines) or text.strip()
    if any(sign in text for sign in NOBODY_ASKED):
        return ClusterError(f"Slurm does not answer: {reason}", "try again when `squeue` answers")
    if not lines or any(sign in text for sign in BROKEN_OFF):
        return UnclearError(f"Slurm does not answer: {reason or 'sbatch was ended without a word'}")
    hint = f"look at cluster.{stage.name} and cluster in the spec; `sinfo` shows what this cluster has"
    return SubmissionError(f"Slurm refused the stage {stage.name}: {reason}", hint)
