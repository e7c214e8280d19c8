"""From a checkpoint of N ranks to DeepSpeed's universal form, by a child process: `python -m` this module.

The child works through one file after the other, memory-mapped: DeepSpeed's own pool of workers would outlive a parent
that is killed. What it makes gets its final name only when it is whole and on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from hpcsft.attempt.heartbeat import OUTLIVED_SIGNALS
from hpcsft.errors import StageError
from hpcsft.records import fsync_folder, read_json, write_json
from hpcsft.train.commit import CONVERTED

SOURCE = "source.json"
ROOT = Path(__file__).resolve().parents[2]
POLL_S = 1.0


class Conversion:
    """Turns the checkpoint `source` into the universal one `destination`; the first `poll` starts it."""

    def __init__(self, source: Path, destination: Path, digest: str):
        self.source = source
        self.destination = destination
        self.digest = digest
        """Tells the source from another checkpoint of the same name that was converted before."""
        self._partial = destination.with_name(f"{destination.name}.{os.getpid()}.partial")
        self._child: subprocess.Popen[bytes] | None = None

    def poll(self, wait_s: float = POLL_S) -> bool:
        """Is the destination there, after waiting for at most `wait_s`?

        Raises OSError when the disk is full, MemoryError when the child was killed, and StageError otherwise.
        """
        if self._child is None:
            if self._is_there():
                return True
            self._child = self._start()
        try:
            code = self._child.wait(wait_s)
        except subprocess.TimeoutExpired:
            return False
        if code:
            raise self._error(code)
        write_json(self._made / SOURCE, {"digest": self.digest})
        os.rename(self._made, self.destination)
        fsync_folder(self.destination.parent)
        return True

    def end(self) -> None:
        """Stop the child if it is still at work, and remove what it has not finished."""
        if self._child:
            self._child.kill()
            self._child.wait()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _is_there(self) -> bool:
        try:
            return read_json(self.destination / SOURCE)["digest"] == self.digest
        except FileNotFoundError:
            return False

    def _start(self) -> subprocess.Popen[bytes]:
        for leftover in self.destination.parent.glob(f"{CONVERTED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self._partial.mkdir(mode=0o700)
        env = {**os.environ, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", "hpcsft.train.conversion", self.source.absolute(), self._made.absolute()]
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, OUTLIVED_SIGNALS)  # a child inherits the mask
        try:
            with open(self._log, "wb") as log:
                return subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def _made(self) -> Path:
        return self._partial / "universal"

    @property
    def _log(self) -> Path:
        return self._partial / "log"

    def _error(self, code: int) -> Exception:
        text = self._log.read_text(encoding="utf-8", errors="replace")
        if os.strerror(errno.ENOSPC) in text:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._partial))
        if code == -signal.SIGKILL:
            return MemoryError(f"converting {self.source.name} was killed, as the kernel does when memory runs out")
        print(text, file=sys.stderr, flush=True)
        said = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), f"exit code {code}")
        return StageError(
            f"{self.source.name} cannot be converted for another number of ranks: {said}",
            "resume on the number of ranks that wrote it; the log has the traceback",
        )


def main(source: str, destination: str) -> None:
    """The child process: convert, and make the result durable."""
    from deepspeed.checkpoint import ds_to_universal

    settings = Namespace(
        input_folder=source,
        output_folder=destination,
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=False,
    )
    with mapped_files():
        ds_to_universal.main(settings)
    for path in Path(destination).rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def mapped_files() -> contextlib.AbstractContextManager[None]:
    """While this lasts torch.load maps files instead of reading them: what is not used takes no memory and no time."""
    try:
        from torch.utils.serialization import config
    except ImportError:  # an older torch reads everything
        return contextlib.nullcontext()
    return config.patch({"load.mmap": True})


if __name__ == "__main__":
    main(*sys.argv[1:])
