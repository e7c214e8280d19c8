"""The frame around a job body: status, attempts, progress and the words for what went wrong.

    jobs/STAGE.py RUN_DIR [INDEX]   ->   run_stage("train", body)   ->   body(StageContext)

A body reads everything it needs from the run directory, so the same command works in a Slurm job, under the local
driver and by hand.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence

from hpcsft.attempt.caches import use_node_caches
from hpcsft.attempt.identity import TaskIdentity
from hpcsft.attempt.memory import peak_resident_gb
from hpcsft.attempt.notice import Notice
from hpcsft.errors import Fenced, HpcsftError, StageError, Stopped
from hpcsft.hub.fetched import local_spec, read_fetched
from hpcsft.hub.offline import go_offline
from hpcsft.plan import Plan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.secrets import guard_output, remember_variables
from hpcsft.spec import ExperimentSpec
from hpcsft.stage.context import StageContext
from hpcsft.stage.ends import begin, record_failure, record_stop
from hpcsft.submitted import refuse_if_edited


def run_stage(
    name: str,
    body: Callable[[StageContext], None],
    argv: list[str] | None = None,
    options: Sequence[str] = (),
    before: Callable[[RunDir], None] | None = None,
) -> None:
    """Run a job body for the task that the arguments and the environment name; exits with 1 when it fails.

    Without INDEX a stage of several tasks runs them all, one after the other. `options` are those that the stage knows.
    `before` may refuse a start by hand.
    """
    given = sys.argv[1:] if argv is None else argv
    chosen = frozenset(given) & frozenset(options)
    arguments = [argument for argument in given if argument not in chosen]
    if len(arguments) not in (1, 2) or (len(arguments) == 2 and not arguments[1].isdigit()) or arguments[0][:1] == "-":
        usage = f"usage: python jobs/{name}.py RUN_DIR [INDEX]" + "".join(f" [{option}]" for option in options)
        if "--help" in arguments:
            print(usage)
            return
        raise SystemExit(usage)
    try:
        guard_output()
        run = RunDir.open(arguments[0]).for_writing()
        fetched = read_fetched(run)
        go_offline(os.environ, fetched)
        use_node_caches(os.environ)
        try:
            spec = local_spec(ExperimentSpec.model_validate(read_json(run.spec)), fetched)
            plan = Plan.model_validate(read_json(run.plan))
        except ValueError:
            refuse_if_edited(run)
            raise
        remember_variables(spec.secret_variables())
        if name not in plan.stage_names:
            raise StageError(f"this run has no stage '{name}'", f"its stages: {', '.join(plan.stage_names)}")
        stage = plan.stage(name)
        task = TaskIdentity.from_environment()
        if before and task.by_hand:
            before(run)
        indexes = [int(arguments[1])] if len(arguments) == 2 else range(stage.tasks)
        for index in indexes:
            if index >= stage.tasks:
                raise StageError(f"stage {name} has tasks 0 to {stage.tasks - 1}, there is no {index}")
            _run_task(StageContext(run, spec, plan, stage, index, task, options=chosen), body)
    except HpcsftError as error:
        with contextlib.suppress(OSError):  # a full disk must not change the exit code
            print("\n".join(error.lines()), file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from None


def _run_task(context: StageContext, body: Callable[[StageContext], None]) -> None:
    if context.run.is_cancelled():
        raise Stopped("this run was cancelled", f"python launch/resume.py {context.run.path} goes on")
    if context.task.rank == 0:
        context.notice = Notice(lambda name: context.journal.write("notice", signal=name), by_hand=context.task.by_hand)
    with context.notice:
        _guarded(context, body)


def _guarded(context: StageContext, body: Callable[[StageContext], None]) -> None:
    """Run the body; however it fails, the run directory, if it is still there, says why before the error goes on."""
    leader = context.task.rank == 0
    try:
        refuse_if_edited(context.run)
        if leader:
            begin(context)
        body(context)
        if leader:
            context.fence.check()
            context.write_status("done")
            context.journal.write("done", attempt=context.attempt, memory_gb=peak_resident_gb())
    except Fenced:
        raise  # nothing may be written any more
    except Stopped as stop:
        if leader:
            record_stop(context, stop)
        raise
    except BaseException as error:
        context.run.refuse_if_gone()
        record_failure(context, error)
        raise
