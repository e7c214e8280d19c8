"""Guards the seconds between a signal and the stopping: it is seen at once whatever the main thread is in, it is seen
also when it came too early, and nothing of it stays behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from hpcsft.attempt import notice as module
from hpcsft.attempt.notice import ASKING, Notice
from tests.launch.command import ROOT
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def harmless() -> Iterator[None]:
    """A signal that nobody takes fails a test, and does not end all tests."""
    kept = {number: signal.signal(number, lambda number, frame: None) for number in ASKING}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


BLOCKING = {
    "a C call that is taken up again": "ctypes.CDLL(None).read(0, ctypes.create_string_buffer(1), 1)",
    "a lock": "threading.Thread(target=release).start(); lock.acquire()",
    "a read": "os.read(0, 1)",
}
CHILD = """
import ctypes, os, threading
from hpcsft.attempt.notice import Notice

lock = threading.Lock()
lock.acquire()


def release():
    os.read(0, 1)
    lock.release()


with Notice(lambda name: print("seen", name, flush=True)) as notice:
    print("ready", flush=True)
    {block}
print("requested", notice.requested, flush=True)
"""


@pytest.mark.parametrize("number", ASKING)
@pytest.mark.parametrize("block", BLOCKING.values(), ids=BLOCKING)
def test_a_signal_is_seen_at_once_whatever_the_main_thread_waits_for(block, number):
    """Inside a collective the interpreter runs no handler before the collective is over."""
    command = [sys.executable, "-c", CHILD.format(block=block)]
    child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    enough = threading.Timer(20, child.kill)
    enough.start()
    try:
        assert child.stdout.readline() == "ready\n"
        wait_for("the child to sleep", lambda: state(child.pid) == "S")
        child.send_signal(number)
        assert child.stdout.readline() == f"seen {number.name}\n"
        assert child.poll() is None
        rest, _ = child.communicate("x", timeout=60)
        assert (rest, child.returncode) == (f"requested {number.name}\n", 0)
    finally:
        enough.cancel()
        child.kill()
        child.communicate()


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_only_the_first_signal_counts():
    told: list[str] = []
    with Notice(told.append) as notice:
        assert notice.requested is None
        os.kill(os.getpid(), signal.SIGUSR2)
        wait_for("the notice", lambda: notice.requested)
        os.kill(os.getpid(), signal.SIGTERM)
        notice.request("time limit")
    assert (notice.requested, told) == ("SIGUSR2", ["SIGUSR2"])


def test_a_suspended_job_that_goes_on_is_not_asked_to_stop():
    with Notice() as notice:
        os.kill(os.getpid(), signal.SIGCONT)
        os.kill(os.getpid(), signal.SIGTERM)  # in the pipe, the one would stand before the other
        assert wait_for("the notice", lambda: notice.requested) == "SIGTERM"


@pytest.mark.parametrize("came", [[signal.SIGTERM], [signal.SIGUSR2, signal.SIGTERM]], ids=["one", "the first of two"])
def test_a_signal_that_came_before_anybody_listened_is_told(monkeypatch, came):
    """While the job imports torch."""
    monkeypatch.setattr(module, "came_before", [int(number) for number in came])
    told: list[str] = []
    with Notice(told.append) as notice:
        assert notice.requested == came[0].name
    assert told == [came[0].name]


def test_everything_is_as_before_when_it_is_over():
    seen: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    numbers = (*ASKING, signal.SIGCONT)
    kept = {number: signal.signal(number, lambda number, frame: seen.append(number)) for number in numbers}
    old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        wait_for("the threads of other tests", no_thread)
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with Notice() as notice:
                os.kill(os.getpid(), signal.SIGTERM)
                wait_for("the notice", lambda notice=notice: notice.requested)
        assert seen == []
        for number in numbers:
            os.kill(os.getpid(), number)
        assert seen == [*map(int, numbers)]
        assert signal.set_wakeup_fd(writer, warn_on_full_buffer=False) == writer
        wait_for("the end of the threads", no_thread)
        assert len(os.listdir("/proc/self/fd")) == descriptors
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in kept.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def no_thread() -> bool:
    return "notice" not in {thread.name for thread in threading.enumerate()}


def test_a_journal_that_cannot_be_written_does_not_keep_the_notice_back():
    def full(name: str) -> None:
        raise OSError("No space left on device")

    notice = Notice(full)
    notice.request("SIGTERM")
    assert notice.requested == "SIGTERM"


def test_outside_the_main_thread_it_leaves_the_handlers_alone():
    before = [signal.getsignal(number) for number in ASKING]
    during: list[object] = []

    def work() -> None:
        with Notice() as notice:
            during.extend(signal.getsignal(number) for number in ASKING)
            notice.request("SIGTERM")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == before == [signal.getsignal(number) for number in ASKING]
