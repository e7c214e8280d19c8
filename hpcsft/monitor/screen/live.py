"""The live screen: looks, shows, and does what the keys say. Slurm is asked in a thread, so that keys always work."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

from rich.console import Console, RenderableType, ScreenContext

from hpcsft.cluster.submit import cancel_run
from hpcsft.errors import HpcsftError
from hpcsft.log_tail import last_lines
from hpcsft.monitor.look import Look
from hpcsft.monitor.screen.cadence import SHORTEST_S, TERMINAL_S, Cadence
from hpcsft.monitor.screen.ends import ended, tell_end
from hpcsft.monitor.screen.keyboard import Keyboard
from hpcsft.monitor.screen.window import title, titled, waking
from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.navigation import Action, Place, chosen_rank, chosen_stage, chosen_stream, press
from hpcsft.monitor.view.pages import LogView, run_page, stage_page
from hpcsft.monitor.view.runs import runs_page
from hpcsft.rundir import RunDir

FILES_S = 1.0
"""Files are looked at so often,"""
SHARE = 0.05
"""and with many runs never for more than this share of the time."""
LOG_LINES, LOG_BYTES = 2000, 262_144


class LiveScreen:
    """One live screen over `look`'s runs."""

    def __init__(self, look: Look, console: Console, stay: bool):
        self.look = look
        self.console = console
        self.stay = stay
        """Does the screen stay when all runs have ended?"""
        self.place = Place("run", alone=True) if len(look.runs) == 1 else Place("runs")
        self.states: list[RunState] = []
        self.log = LogView(None)
        self.note: str | None = None
        """In the last line instead of the keys, until the next key."""
        self.told: list[str] = []
        """What came of notifications."""
        self.cadence = Cadence(TERMINAL_S)
        self._asking: threading.Thread | None = None
        self._at_work: list[threading.Thread] = []
        self._answered_s = float("-inf")
        self._next_ask_s = float("-inf")
        self._wake_reader, self._wake_writer = os.pipe()

    def run(self) -> list[RunState]:
        """Show the runs until a key, or their end, ends it; returns their last states."""
        keyboard = Keyboard(sys.stdin.fileno()) if sys.stdin.isatty() else None
        console = self.console
        with waking(self._wake_writer), titled(console), console.screen() as screen, keyboard or nullcontext():
            self._loop(screen, keyboard)
        for thread in self._at_work:
            if thread is not self._asking:
                thread.join()
        return self.states

    def _loop(self, screen: ScreenContext, keyboard: Keyboard | None) -> None:
        self._look()
        while True:
            self._ask_if_due()
            screen.update(self._page())
            self._title()
            if self._is_over():
                return
            for key in self._wait(keyboard):
                if self._press(key) == "quit":
                    return
            self._look()

    def _look(self) -> None:
        began_s = time.monotonic()
        shown = () if self.place.page == "runs" else (self.place.run,)
        before = self.states
        self.states = self.look.states(shown)
        if self.look.news:
            self.cadence.changed()
            self._next_ask_s = min(self._next_ask_s, self._answered_s + SHORTEST_S)
        for run, old, new in zip(self.look.runs, before, self.states, strict=False):
            if ended(old, new):
                self._do(self._tell, run, new)
        if shown:
            self.log = read_log(self.look.runs[self.place.run], self.states[self.place.run], self.place)
            self.place = replace(self.place, back=min(self.place.back, max(0, len(self.log.lines) - 1)))
        self._took_s = time.monotonic() - began_s

    def _ask_if_due(self) -> None:
        if self.look.queue is None or (self._asking and self._asking.is_alive()):
            return
        if time.monotonic() >= self._next_ask_s and not self._is_over():
            self._asking = self._do(self._ask)

    def _ask(self) -> None:
        before = self.look.snapshot
        after = self.look.ask(self.cadence.pause_s * 0.5)
        self.cadence.unchanged() if after.same_as(before) else self.cadence.changed()
        self._answered_s = time.monotonic()
        age_s = max(0.0, time.time() - after.asked)  # another monitor's answer may be older
        self._next_ask_s = self._answered_s + max(SHORTEST_S, self.cadence.next_s() - age_s)
        os.write(self._wake_writer, b"\0")

    def _tell(self, run: RunDir, state: RunState) -> None:
        if line := tell_end(run, state):
            self.note = line
            self.told.append(line)
        os.write(self._wake_writer, b"\0")

    def _wait(self, keyboard: Keyboard | None) -> list[str]:
        """The keys typed until the next look is due; none when it is, or an answer or another size has come."""
        pause_s = max(FILES_S, self._took_s / SHARE)
        inputs = [self._wake_reader] + ([keyboard.fd] if keyboard else [])
        ready, _, _ = select.select(inputs, [], [], pause_s)
        if self._wake_reader in ready:
            os.read(self._wake_reader, 4096)
        return keyboard.read() if keyboard and keyboard.fd in ready else []

    def _press(self, key: str) -> Action | None:
        self.note = None
        self.place, action = press(self.place, key, self.states, self.log.ranks)
        if action == "ask":
            self.cadence.changed()
            self._next_ask_s = self._answered_s + SHORTEST_S
        if action == "cancel":
            self.note = "cancelling ..."
            self._do(self._cancel, self.look.runs[self.place.run])
        return action

    def _cancel(self, run: RunDir) -> None:
        try:
            ids = " ".join(cancel_run(run)) or "nothing"
            self.note = f"cancelled {ids}; go on later with hpcsft resume {run.path}"
        except HpcsftError as error:
            self.note = " ".join(error.lines())
        self._next_ask_s = self._answered_s
        os.write(self._wake_writer, b"\0")

    def _do(self, act: Callable[..., None], *arguments: object) -> threading.Thread:
        """Do in a thread what may take long."""
        thread = threading.Thread(target=act, args=arguments, daemon=True)
        self._at_work = [*(each for each in self._at_work if each.is_alive()), thread]
        thread.start()
        return thread

    def _page(self) -> RenderableType:
        width, height = self.console.size
        if self.place.page == "runs":
            return runs_page(self.states, self.place, width, height)
        page = stage_page if self.place.page == "stage" else run_page
        return page(self.states[self.place.run], self.place, self.log, width, height, self.note)

    def _title(self) -> None:
        shown = self.states if self.place.page == "runs" else [self.states[self.place.run]]
        self.console.set_window_title(title(shown))

    def _is_over(self) -> bool:
        return not self.stay and all(state.finished for state in self.states)


def read_log(run: RunDir, state: RunState, place: Place) -> LogView:
    """The end of the log that belongs on the screen."""
    stage = state.stages[chosen_stage(state, place)]
    task = stage.tasks[min(place.task, len(stage.tasks) - 1)] if stage.tasks else None
    if task is None or task.job_id is None:
        lines = last_lines(run.path / stage.log, LOG_LINES, LOG_BYTES) if stage.log else []
        return LogView(stage.log, lines)
    folder = run.log_folder(stage.name, task.job_id, task.restart)
    ranks = sorted(int(file.stem) for file in folder.glob("*.out") if file.stem.isdigit())
    path = folder / f"{chosen_rank(stage, place)}.{chosen_stream(stage, place)}"
    return LogView(str(path.relative_to(run.path)), last_lines(path, LOG_LINES, LOG_BYTES), ranks)
