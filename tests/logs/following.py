"""Somebody who follows a log, and what they have seen so far."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from hpcsft.logs.choose import Wish, choose
from hpcsft.logs.show import follow
from hpcsft.rundir import RunDir
from tests.waiting import wait_for


class Following:
    """`follow` of the training in a thread of its own; what it prints goes to files in `folder`."""

    def __init__(self, run: RunDir, folder: Path, patch: pytest.MonkeyPatch):
        self.files = {name: folder / f"printed.{name}" for name in ("stdout", "stderr")}
        for name, path in self.files.items():
            patch.setattr(sys, name, open(path, "w"))  # noqa: SIM115 (closed by `end`)
        self.state: str | None = None
        choice = choose(run, Wish(stage="train"))
        self.thread = threading.Thread(target=lambda: setattr(self, "state", follow(run, choice, "both")), daemon=True)
        self.thread.start()

    @property
    def out(self) -> bytes:
        return self.files["stdout"].read_bytes()

    @property
    def err(self) -> bytes:
        return self.files["stderr"].read_bytes()

    def wait_for(self, text: bytes) -> None:
        wait_for(repr(text), lambda: text in self.out, timeout_s=20)

    def end(self) -> str | None:
        self.thread.join(20)
        assert not self.thread.is_alive(), "it goes on after the end of the stage"
        sys.stdout.close()
        sys.stderr.close()
        return self.state
