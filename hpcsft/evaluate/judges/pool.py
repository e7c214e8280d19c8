"""Questions to an endpoint, several at once: tries, pauses, and an end when it makes no sense to go on.

Threads ask, each one question until it is answered or given up; the caller only looks on. They are daemons: a request
that an endpoint keeps open must not keep a process that was told to stop.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from hpcsft.evaluate.judges.cost import Budget
from hpcsft.evaluate.judges.failures import Barred, Closed, Refused, TryLater
from hpcsft.evaluate.judges.protocol import Keep
from hpcsft.evaluate.judges.settings import JudgeSettings
from hpcsft.evaluate.judges.standing import Standing
from hpcsft.evaluate.judges.trouble import TO_MEND, gone, refusal, waiting
from hpcsft.evaluate.verdicts import Comparison, Verdict
from hpcsft.spec.evaluate import JudgeSpec

TICK_S = 0.2
"""The caller gets a chance to look around at least this often."""

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
"""Before try n + 1 a thread waits between 0 and the first times 2 to the n - 1, at most the longest."""

LONGEST_PAUSE_S = 600.0
"""An endpoint that asks for more than this has closed for today."""

NO_NETWORK_S = 20.0
"""Nobody was reached in this time: there is no network, or nothing at this address."""

CLOSING_S = 5.0
"""Patience with what is under way when the caller leaves early."""


class RequestPool:
    """Asks `pairs` by means of `ask`, which raises TryLater, Refused, Barred or Closed. Iterate it once, to the end."""

    def __init__(
        self,
        ask: Callable[[Comparison], Verdict],
        settings: JudgeSettings,
        spec: JudgeSpec,
        pairs: Sequence[Comparison],
        keep: Keep,
        budget: Budget,
        standing: Standing,
    ):
        self._ask = ask
        self._settings = settings
        self._spec = spec
        self._keep = keep
        self._budget = budget
        self._standing = standing
        self._todo = deque(pairs)
        self._changed = threading.Condition()
        """Guards all below, and tells the caller."""
        self._quit = threading.Event()
        """No further requests."""
        self._left = False
        """Nobody takes verdicts any more."""
        self._trouble: BaseException | None = None
        self._resume_s = 0.0
        self._connected = False
        self._begun_s = time.monotonic()
        self._answered_now = False
        self._held: list[tuple[Comparison, Verdict]] = []
        """Given up since the last reply to anybody: whose fault it was is not known yet."""
        self._num_running = 0
        self._num_asking = 0
        self._random = random.Random()

    def __iter__(self) -> Iterator[None]:
        """Yields as Judge.verdicts does. Waiting if the endpoint is given up; what was under way has been kept then."""
        num_threads = self._num_running = min(self._spec.max_concurrency, len(self._todo))
        threads = [threading.Thread(target=self._work, daemon=True, name="judge") for _ in range(num_threads)]
        try:
            for thread in threads:
                thread.start()
            while True:
                with self._changed:
                    if self._num_running:
                        self._changed.wait(TICK_S)
                    running = self._num_running
                yield
                if not running:
                    break
        finally:
            self._quit.set()
            deadline = time.monotonic() + CLOSING_S
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            with self._changed:
                self._left = True
        if self._standing.answered and (self._answered_now or not self._trouble):
            self._keep_held()
        if self._trouble:
            raise self._trouble

    def _work(self) -> None:
        try:
            while (pair := self._next()) is not None:
                try:
                    self._until_answered(pair)
                finally:
                    self._give_back(pair)
        except BaseException as error:  # no thread may die unseen
            self._stop(error)
        finally:
            with self._changed:
                self._num_running -= 1
                self._changed.notify()

    def _next(self) -> Comparison | None:
        with self._changed:
            while not self._quit.is_set() and self._todo:
                if self._budget.reserve(self._todo[0]):
                    self._num_asking += 1
                    return self._todo.popleft()
                if not self._num_asking:
                    self._stop(self._budget.exhausted())
                self._changed.wait(TICK_S)  # what is under way may cost less than was set aside for it
            return None

    def _give_back(self, pair: Comparison) -> None:
        with self._changed:
            self._budget.release(pair)
            self._num_asking -= 1
            self._changed.notify_all()

    def _until_answered(self, pair: Comparison) -> None:
        backoff_s = 0.0
        for number in range(self._spec.max_tries):
            if not self._wait(backoff_s):
                return
            try:
                verdict = self._ask(pair)
            except TryLater as error:
                failure = error
                self._note(error)
                longest_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**number)
                backoff_s = 0.0 if error.pause_s is not None else self._random.uniform(0, longest_s)
            except Refused as error:
                self._refuse(pair, str(error))
                return
            except Barred as error:
                failure = error
                break
            except Closed as error:
                self._stop(gone(self._spec, self._settings, error))
                return
            else:
                self._take(pair, verdict)
                return
        self._give_up(pair, failure)

    def _wait(self, backoff_s: float) -> bool:
        """Wait for one's own backoff and everybody's pause; False if no more requests are to be sent."""
        ready_s = time.monotonic() + backoff_s
        while (rest_s := max(ready_s, self._resume_s) - time.monotonic()) > 0:
            if self._quit.wait(rest_s):
                return False
        return not self._quit.is_set()

    def _note(self, error: TryLater) -> None:
        with self._changed:
            self._connected |= error.connected
            if error.pause_s is not None:
                self._resume_s = max(self._resume_s, time.monotonic() + error.pause_s)
                if error.pause_s > LONGEST_PAUSE_S:
                    self._stop(
                        waiting(self._settings, f"asks to come back in {error.pause_s / 60:.0f} minutes: {error}")
                    )
            if not self._connected and time.monotonic() - self._begun_s >= NO_NETWORK_S:
                self._stop(gone(self._spec, self._settings, error))

    def _take(self, pair: Comparison, verdict: Verdict) -> None:
        with self._changed:
            if self._left:
                return
            self._keep([(pair, verdict)])
            self._connected = self._answered_now = True
            self._keep_held()
            if self._standing.replied(verdict):
                sample = verdict.raw if len(verdict.raw) <= 200 else verdict.raw[:197] + "..."
                self._stop(waiting(self._settings, f"gives no verdict in its replies, such as {sample!r}", TO_MEND))

    def _refuse(self, pair: Comparison, reason: str) -> None:
        with self._changed:
            if self._left:
                return
            self._connected = True
            self._keep([(pair, refusal(reason, given_up=not self._standing.answered))])
            if self._standing.refused():
                self._stop(waiting(self._settings, f"refuses every question: {reason}"))

    def _give_up(self, pair: Comparison, failure: TryLater | Barred) -> None:
        """It is the question's fault if others are answered; if nobody is, the judge is gone."""
        with self._changed:
            if self._left:
                return
            connected = isinstance(failure, Barred) or failure.connected
            answered, is_gone = self._standing.answered, self._standing.failed(pair, connected)
            if answered and connected:
                self._held.append((pair, refusal(str(failure), given_up=True)))
            else:
                self._todo.append(pair)
            if is_gone or (isinstance(failure, Barred) and not answered):
                self._stop(gone(self._spec, self._settings, failure))

    def _keep_held(self) -> None:
        if self._held:
            self._keep(self._held)
            self._held = []

    def _stop(self, trouble: BaseException) -> None:
        with self._changed:
            self._trouble = self._trouble or trouble
            self._quit.set()
