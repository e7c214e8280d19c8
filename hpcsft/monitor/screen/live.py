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
from hpcsft.monitor.screen.cadence import TERMINAL_S, Cadence, pause_of_files_s
from hpcsft.monitor.screen.ends import Ends
from hpcsft.monitor.screen.keyboard import Keyboard
from hpcsft.monitor.screen.window import title, titled, waking
from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.navigation import Action, Place, chosen_rank, chosen_stage, chosen_stream, chosen_task, press
from hpcsft.monitor.view.pages import LogView, run_page, stage_page
from hpcsft.monitor.view.runs import runs_page
from hpcsft.rundir import RunDir

LOG_LINES, LOG_BYTES = 2000, 262_144


class LiveScreen:
    """One live screen over `look`'s runs."""

    def __init__(self, look: Look, console: Console, stay: bool):
        self.look = look
        self.console = console
        self.keyboard = Keyboard(sys.stdin.fileno()) if sys.stdin and sys.stdin.isatty() else None
        self.stay = stay and self.keyboard is not None
        """Does the screen stay when all runs have ended?"""
        self.place = Place("run", alone=True) if len(look.runs) == 1 else Place("runs")
        self.states: list[RunState] = []
        self.log = LogView(None)
        self.note: str | None = None
        """In the last line instead of the keys, until the next key."""
        self.told: list[str] = []
        """What came of notifications."""
        self.cadence = Cadence(TERMINAL_S)
        self._asked = 0.0
        self.ends = Ends()
        self._asking: threading.Thread | None = None
        self._telling: threading.Thread | None = None
        self._at_work: list[threading.Thread] = []
        self._next_look_s = 0.0
        self._wake_reader, self._wake_writer = os.pipe()

    def run(self) -> list[RunState]:
        """Show the runs until a key, or their end, ends it; returns their last states."""
        console = self.console
        with waking(self._wake_writer), titled(console), console.screen() as screen, self.keyboard or nullcontext():
            self._loop(screen)
        for thread in self._at_work:
            if thread is not self._asking:
                thread.join()
        if self._is_over():
            self.told += self.ends.tell_all()
        return self.states

    def _loop(self, screen: ScreenContext) -> None:
        while True:
            if time.monotonic() >= self._next_look_s:
                self._look()
            self._ask_if_due()
            screen.update(self._page())
            self._title()
            if self._is_over():
                return
            keys = self._wait()
            if "quit" in [self._press(key) for key in keys]:
                return
            if keys and self.place.page != "runs":
                self._look_at_shown()

    def _look(self) -> None:
        """Look at all runs."""
        began_s = time.monotonic()
        before = self.states
        self.states = self.look.states(() if self.place.page == "runs" else (self.place.run,))
        for run, old, new in zip(self.look.runs, before, self.states, strict=False):
            self.ends.see(run, old, new)
        if self.stay and self.ends.due() and not (self._telling and self._telling.is_alive()):
            self._telling = self._do(self._tell)
        self._after_look()
        self._next_look_s = time.monotonic() + pause_of_files_s(time.monotonic() - began_s)

    def _look_at_shown(self) -> None:
        """Look at the run that is open, of which a key may have asked for more."""
        self.states[self.place.run] = self.look.state(self.place.run)
        self._after_look()

    def _after_look(self) -> None:
        if self.look.news:
            self.cadence.want(time.time())
        if self.place.page != "runs":
            self.log = read_log(self.look.runs[self.place.run], self.states[self.place.run], self.place)
            self._stay_in_log()

    def _stay_in_log(self) -> None:
        """Scroll no further back than to the first line."""
        self.place = replace(self.place, back=min(self.place.back, max(0, len(self.log.lines) - 1)))

    def _ask_if_due(self) -> None:
        busy = self._asking is not None and self._asking.is_alive()
        if self.look.queue and not busy and not self._is_over() and self.cadence.due(self._asked, time.time()):
            self._asking = self._do(self._ask)

    def _ask(self) -> None:
        max_age_s = self.cadence.max_age_s(self._asked, time.time())
        self._asked = time.time()  # whatever comes of it
        self.cadence.answered(self.look.ask(max_age_s))
        self._asked = self.look.snapshot.asked  # another monitor's answer may be older
        self._next_look_s = 0.0

    def _tell(self) -> None:
        if lines := self.ends.tell():
            self.note = lines[-1]
            self.told += lines

    def _wait(self) -> list[str]:
        """The keys typed until the next look is due; none when it is, or an answer or another size has come."""
        pause_s = max(0.0, self._next_look_s - time.monotonic())
        inputs = [self._wake_reader] + ([self.keyboard.fd] if self.keyboard else [])
        ready, _, _ = select.select(inputs, [], [], pause_s)
        if self._wake_reader in ready:
            os.read(self._wake_reader, 4096)
        return self.keyboard.read() if self.keyboard and self.keyboard.fd in ready else []

    def _press(self, key: str) -> Action | None:
        self.note = None
        self.place, action = press(self.place, key, self.states, self.log.ranks)
        self._stay_in_log()
        if action == "ask":
            self.cadence.want(time.time())
        if action == "cancel":
            self.note = "cancelling ..."
            self._do(self._cancel, self.look.runs[self.place.run])
        return action

    def _cancel(self, run: RunDir) -> None:
        ids = " ".join(cancel_run(run)) or "nothing"
        self.note = f"cancelled {ids}; go on later with hpcsft resume {run.path}"
        self.cadence.want(time.time())

    def _do(self, act: Callable[..., None], *arguments: object) -> threading.Thread:
        """Do in a thread what may take long; what goes wrong is told in the last line."""

        def work() -> None:
            try:
                act(*arguments)
            except HpcsftError as error:
                self.note = " ".join(error.lines())
            except Exception as error:
                self.note = f"error: {type(error).__name__}: {error}"
            os.write(self._wake_writer, b"\0")

        thread = threading.Thread(target=work, daemon=True)
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
    if not state.stages:
        return LogView(None)
    stage = state.stages[chosen_stage(state, place)]
    task = next((task for task in stage.tasks if task.index == chosen_task(stage, place)), None)
    if task is None or task.job_id is None:
        lines = last_lines(run.path / stage.log, LOG_LINES, LOG_BYTES) if stage.log else []
        return LogView(stage.log, lines)
    folder = run.log_folder(stage.name, task.job_id, task.restart)
    ranks = sorted(int(file.stem) for file in folder.glob("*.out") if file.stem.isdigit())
    path = folder / f"{chosen_rank(stage, place)}.{chosen_stream(stage, place)}"
    return LogView(str(path.relative_to(run.path)), last_lines(path, LOG_LINES, LOG_BYTES), ranks)
