"""The end of a process that is done: at once.

The threads of gloo drop the last tensors whenever they get to it. If that is while the interpreter is torn down, the
process is aborted (PyTorch issue 190489), and srun would take the rank, and with it the others, for failed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def ends_at_once() -> Iterator[None]:
    """Whatever way the block is left, this process ends without tearing down the interpreter once Python is done.

    Its exit status is 0, that of the SystemExit, or 1 for another exception. What an outer block says counts.
    """
    code = 1
    try:
        yield
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        raise
    finally:
        atexit.register(_end, code)  # the last registered runs first


def _end(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a full disk, or closed already
            stream.flush()
    os._exit(code)
