"""What a job finds when it starts, whatever became of the process that submitted it.

submitit gives its pickled task the job's id as a name only after sbatch has answered. A job whose submitter was killed
in between, or never got the answer, takes a copy that was laid down before.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcsft.attempt.fence import MARK_VARIABLE
from hpcsft.cluster.task import StageTask
from hpcsft.rundir import RunDir
from hpcsft.shell import quoted


def lay_down(run: RunDir, tasks: Sequence[StageTask], time_min: int) -> None:
    """Write the pickled tasks of a stage, by their index. OSError."""
    from submitit.core.utils import DelayedSubmission

    for task in tasks:
        folder = run.submitit / task.stage
        folder.mkdir(mode=0o700, exist_ok=True)
        delayed = DelayedSubmission(task)
        delayed.set_timeout(time_min, 0)
        delayed.dump(folder / f"{task.index}.pkl")


def refuse_without_run(run: RunDir) -> str:
    """The first line of the batch script: it ends the job where the run directory is not."""
    lost = f"hpcsft: {run.path} is not there on this node: moved, deleted, or its filesystem is not mounted here"
    return f"[ -d {quoted(str(run.code))} ] || {{ echo {quoted(lost)} >&2; exit 1; }}"


def task_lines(run: RunDir, stage: str, mark: str = "") -> list[str]:
    """Lines of the batch script, after the user's setup: the code is the run's own, and the task is there."""
    folder = quoted(str(run.submitit / stage))
    return [
        f"cd {quoted(str(run.code))} || exit 1",
        *([f"export {MARK_VARIABLE}={mark}"] if mark else []),
        'task="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"',
        f'task={folder}/"${{task:-$SLURM_JOB_ID}}_submitted.pkl"',
        f'[ -e "$task" ] || cp {folder}/"${{SLURM_ARRAY_TASK_ID:-0}}.pkl" "$task"',
    ]
