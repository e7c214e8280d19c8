"""The one class that submitit pickles. It carries strings only and finds everything else in the run directory.

A requeued job loads the same pickle again, so nothing in it may grow stale; and it must load without the packages
of a particular version of hpcsft, so its code does no more than step into the snapshot.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

HOLD_S = 3600
"""How long a rank that was fenced off waits to be ended by Slurm, which knows that it is not wanted any more."""


@dataclass(frozen=True)
class StageTask:
    """Run CODE_DIR/jobs/STAGE.py RUN_DIR INDEX in this process, its output in the run's own logs."""

    code_dir: str
    run_dir: str
    stage: str
    index: str

    def __call__(self) -> None:
        os.umask(0o077)
        came: list[int] = []
        for number in (signal.SIGTERM, signal.SIGUSR2):  # submitit's own handlers would requeue, or fail, on their own
            signal.signal(number, lambda number, frame: came.append(number))
        import submitit

        from hpcsft.attempt import notice
        from hpcsft.attempt.ending import ends_at_once
        from hpcsft.attempt.identity import TaskIdentity
        from hpcsft.errors import RunNotFoundError
        from hpcsft.rundir import RunDir

        notice.came_before = came
        result = submitit.JobEnvironment().paths.result_pickle  # what a killed attempt left would fail this one
        result.with_suffix(f"{result.suffix}.save_tmp").unlink(missing_ok=True)
        task = TaskIdentity.from_environment()
        run = RunDir(self.run_dir)
        folder = run.log_folder(self.stage, task.job_id, task.restart)
        try:
            run.refuse_if_gone()
            folder.mkdir(parents=True, exist_ok=True)
        except RunNotFoundError as error:
            self._leave(error.exit_code, error.lines())
        redirect(folder / f"{task.rank}.out", folder / f"{task.rank}.err")
        script = str(Path(self.code_dir) / "jobs" / f"{self.stage}.py")
        sys.argv = [script, self.run_dir, self.index]
        with ends_at_once():
            self._run(script, task.token.in_slurm, f"{folder}/{task.rank}.err")

    def _run(self, script: str, in_slurm: bool, log: str) -> None:
        from hpcsft.errors import EXIT_FENCED, EXIT_NO_RUN, EXIT_STOPPED

        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as leave:  # submitit takes exceptions for failures, but not this one
            if leave.code == EXIT_FENCED and in_slurm:
                time.sleep(HOLD_S)  # srun would take our end for that of the newer attempt's step, and cancel it
            elif leave.code == EXIT_NO_RUN:
                self._leave(EXIT_NO_RUN)
            elif leave.code not in (None, 0, EXIT_STOPPED):  # what was stopped has failed at nothing
                raise RuntimeError(f"stage {self.stage} failed; its log is {log}") from None
        except Exception:  # submitit would keep its text, which may hold a secret, in a pickle
            traceback.print_exc()
            raise RuntimeError(f"stage {self.stage} failed; its log is {log}") from None
        finally:
            for number in (signal.SIGTERM, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)

    def _leave(self, code: int, lines: Sequence[str] = ()) -> NoReturn:
        """End at once: the run directory has gone, and with it the place where submitit would write how it went."""
        with suppress(OSError, ValueError):
            print(*lines, sep="\n", file=sys.stderr, flush=True)
        os._exit(code)


def redirect(out: Path, err: Path) -> None:
    """Append everything that this process and its children print to `out` and `err`."""
    for path, number in ((out, 1), (err, 2)):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(fd, number)
        os.close(fd)
