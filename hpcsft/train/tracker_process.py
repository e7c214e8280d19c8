"""Feeds one tracker from metrics.jsonl and validation.jsonl.

    python -m hpcsft.train.tracker_process RUN_DIR tensorboard|wandb [finished]

Started by `trackers.py`. A line on stdin means that there are new rows; a word on it, or its end, that no more will
come. Every attempt sends everything anew, so that what a killed one could not send is not missing, and steps that were
done again stand there once. The files of earlier attempts are superseded, and removed when nobody can be reading them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpcsft.rundir import RunDir
from hpcsft.train.tracker_kinds import TRACKERS, Row, Tracker
from hpcsft.train.trackers import FAILED, FINISHED, PROCESS


class Follower:
    """Reads what is appended to a JSONL file, whole lines only."""

    def __init__(self, path: Path):
        self.path = path
        self._offset = 0

    def new_rows(self) -> Iterator[Row]:
        """Rows since the last call; torn lines of killed writers are skipped."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue


class Feed:
    """One tracker and how far it is. What goes wrong with it is said once and ends nothing."""

    def __init__(self, run: RunDir, name: str):
        self.run, self.name = run, name
        self.failed = False
        self._tracker: Tracker | None = None
        self._files = {"train": Follower(run.metrics), "validation": Follower(run.validation)}

    def send(self) -> None:
        """Everything new, in order."""
        with self._guard():
            self._tracker = self._tracker or TRACKERS[self.name](self.run)
            rows = [(kind, row) for kind, file in self._files.items() for row in file.new_rows()]
            for kind, row in sorted(rows, key=lambda entry: (entry[1]["step"], entry[0])):
                self._tracker.show(kind, row)
            self._tracker.flush()

    def close(self, end: str) -> None:
        """No more will come in this attempt."""
        with self._guard():
            self._tracker.close(end)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failed = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            say(f"{self.name}: shows nothing more in this attempt: {reason}")


_log = 2


def main(run_path: str, name: str, end: str | None = None) -> None:
    """Feed the tracker `name` until stdin tells the end; with an `end`, what there is at once.

    A tracker that has failed is given the whole run once more when that is finished: no other attempt will do it.
    """
    feed = Feed(RunDir(run_path), name)
    feed.send()
    told = end is not None
    while end is None:
        heard = os.read(0, 65536)
        words = heard.decode().split()
        end = words[0] if words else None if heard else FAILED
        if not feed.failed:
            feed.send()
    if not feed.failed:
        feed.close(end)
    if feed.failed and end == FINISHED and not told:  # in a process without the remains of what has failed
        os.dup2(_log, 2)
        os.execv(sys.executable, [sys.executable, "-m", PROCESS, run_path, name, end])


def say(line: str) -> None:
    """One line in rank 0's log; none where that is gone."""
    with suppress(OSError):
        os.write(_log, f"{line}\n".encode())


if __name__ == "__main__":
    os.nice(max(0, 10 - os.nice(0)))  # behind training, where they share a core
    _log = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the packages print would look like training's own failure
    main(*sys.argv[1:])
