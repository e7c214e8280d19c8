"""Guards a save against its sudden end: SIGKILL before every single file operation of it, one after the other.

A child process saves with the functions of the filesystem wrapped by a counter that kills it before operation N.
"""

from __future__ import annotations

import builtins
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcsft.records import write_json
from hpcsft.rundir import RunDir
from hpcsft.train import commit
from tests.train.saving import begin, damage, fence, leftovers, save, whole

OPERATIONS = ("open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "ftruncate", "scandir")


def killed_before(operation: int, act: Callable[[], None]) -> bool:
    """Act in a child that is killed before its file operation number `operation` (from 1); False if it came through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left threads; the child needs none
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(60)
            _kill_before(operation)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _kill_before(operation: int) -> None:
    left = operation

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))
    builtins.open = counted(builtins.open)


def prepared(folder: Path, damaged: bool) -> RunDir:
    """A run with the checkpoints 2 and 4, and an attempt that has begun and found the newer one `damaged` or not."""
    run = RunDir(folder)
    run.create()
    write_json(run.spec, {})  # which makes it a run
    own = begin(run, 0)
    for step in (2, 4):
        save(run, step, own)
    if damaged:
        damage(run.step_folder(4) / "common.pt")
    begin(run, 1)
    if damaged:
        commit.distrust(run.step_folder(4))
    return run


SCENES = {
    "after two": (False, 6, 2, ([4, 2], [6, 4, 2], [6, 4])),
    "after two, keeping one": (False, 6, 1, ([4, 2], [6, 4, 2], [6, 4], [6, 2], [6])),
    "in place of a damaged one": (True, 4, 2, ([2], [4, 2])),
    "in place of a damaged one, keeping one": (True, 4, 1, ([2], [4, 2], [4])),
}


@pytest.mark.parametrize(("damaged", "step", "keep", "allowed"), SCENES.values(), ids=SCENES)
def test_a_kill_at_any_file_operation_leaves_the_old_or_the_new(tmp_path, damaged, step, keep, allowed):
    template = prepared(tmp_path / "template", damaged)
    seen = set()
    operation = 0
    killed = True
    while killed:
        operation += 1
        shutil.copytree(template.path, tmp_path / "run")
        run = RunDir(tmp_path / "run")
        killed = killed_before(operation, lambda run=run: save(run, step, fence(run, 1), keep))
        found = whole(run)
        seen.add(tuple(found))
        where = f"killed before operation {operation}: {found}, {sorted(run.checkpoints.rglob('*'))}"
        assert found in allowed, where
        listed = [complete.step for _, complete in commit.published(run)]
        assert damaged or listed == found, where
        pointed = run.checkpoints / (run.checkpoints / "latest").read_text().strip()
        assert killed or pointed == run.step_folder(step), where

        own = begin(run, 2)
        assert whole(run) == found, where
        again = step + 2 if step in found else step
        save(run, again, own, keep)
        assert whole(run)[0] == again and len(whole(run)) == min(keep, 1 + len(found)), where
        begin(run, 3)
        assert leftovers(run) == [], where
        shutil.rmtree(run.path)
    assert operation > 40, "the operations were not counted"
    assert {tuple(allowed[0]), tuple(allowed[-1])} < seen or len(allowed) == 2, "before, in between and after"
