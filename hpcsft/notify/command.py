"""A command that is told of an event: a program of the user's own, run without a shell."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO

TIMEOUT_S = 30.0
ERROR_LENGTH = 200


def run_command(
    words: Sequence[str], folder: str, variables: Mapping[str, str], given: str, timeout_s: float = TIMEOUT_S
) -> str | None:
    """Run a program in `folder` with `given` on its standard input; None if it ends well, else why not.

    After `timeout_s` it is killed, with all that is in its process group. Its output is not kept but for the last line
    of its errors.
    """
    try:
        with tempfile.TemporaryFile() as errors:
            return _run(words, folder, {**os.environ, **variables}, given, timeout_s, errors)
    except OSError as error:
        return error.strerror or type(error).__name__
    except ValueError as error:  # a NUL among the words
        return str(error)


def _run(
    words: Sequence[str], folder: str, env: Mapping[str, str], given: str, timeout_s: float, errors: IO[bytes]
) -> str | None:
    with subprocess.Popen(
        words,
        cwd=folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
    ) as process:
        try:
            process.communicate(given.encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return f"killed after {timeout_s:g} s"
    if process.returncode == 0:
        return None
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    told = next((line.strip() for line in reversed(lines) if line.strip()), "")
    told = re.sub(r"(https?://[^/\s]+)/\S+", r"\1/...", told)[:ERROR_LENGTH]  # an address may be a secret
    return f"exit status {process.returncode}" + (f": {told}" if told else "")
