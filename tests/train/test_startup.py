"""Guards what is told of a start: every second of the process's life is in one phase."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from hpcsft.train.startup import Startup

LOOK = """
import json, time
from hpcsft.train.startup import Startup
startup = Startup()
startup.done("imports")
deadline = time.monotonic() + 0.2
while time.monotonic() < deadline:
    pass
startup.done("model")
print(json.dumps(startup.phases_s))
"""


def test_phases_begin_with_the_process_and_leave_nothing_out():
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    lived_s = time.monotonic() - started
    phases = json.loads(done.stdout)
    assert list(phases) == ["imports", "model"]
    assert phases["model"] == pytest.approx(0.2, abs=0.15) and phases["model"] >= 0.19
    assert 0 < phases["imports"] < lived_s - 0.15


def test_phases_are_told_in_a_line():
    startup = Startup()
    startup.phases_s = {"imports": 6.04, "model": 1.96}
    assert str(startup) == "ready after 8.0 s: imports 6.0, model 2.0"
