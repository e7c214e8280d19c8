"""The batch script could not make the job's environment: say so where the monitor looks, and end the attempt.

python -m hpcsft.attempt.environment_failed RUN_DIR STAGE "FIELD OF THE SPEC: MESSAGE"
"""

from __future__ import annotations

import os
import sys

from hpcsft.attempt import after_srun
from hpcsft.attempt.fence import Fence
from hpcsft.attempt.identity import TaskIdentity
from hpcsft.attempt.journal import Journal
from hpcsft.errors import report_errors
from hpcsft.plan import Plan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir


def main(argv: list[str]) -> int:
    """Write the failure down and judge it as any other; returns the exit status of the job.

    Raises Fenced if a newer attempt has taken the task over.
    """
    run, name, message = RunDir.open(argv[0]), argv[1], argv[2]
    stage = Plan.model_validate(read_json(run.plan)).stage(name)
    index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    task = TaskIdentity.from_environment()
    Fence(run, name, index, stage.tasks, task.token).claim()
    field = message.partition(":")[0]
    hint = f"mend it there, or change {field}: python launch/resume.py {run.path} --set {field}=..."
    journal = Journal(run, name, index, stage.tasks, task.token)
    journal.write("failed", rank=task.rank, cause="environment", message=message, hint=hint)
    return after_srun.main([argv[0], name, "1"])


if __name__ == "__main__":
    sys.exit(report_errors(main, sys.argv[1:]))
