"""A checkpoint engine for DeepSpeed that holds training up only for a copy in memory.

    begin -> DeepSpeed calls save for each file -> start -> training goes on while a thread writes -> finish

`save` freezes what it is given (`frozen.py`) in host memory that every save uses again. The thread hands the frozen
state to torch.save, so that the file loads as one that was written directly would.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine

from hpcsft.records import fsync_folder
from hpcsft.train.base_model import frozen_names
from hpcsft.train.commit import FileFacts
from hpcsft.train.frozen import Frozen, freeze, frozen_bytes
from hpcsft.train.host_memory import HostMemory, lower_priority

PIECE_BYTES = 16 << 20
"""Written and hashed at a time: the GIL is given up for each piece, and a piece hashed right away is partly cached."""
SMALL_FILES_BYTES = 1 << 20


class SnapshotEngine(CheckpointEngine):
    """Where DeepSpeed hands over each file of a save; set it as `engine.checkpoint_engine`.

    Errors of writing never end a save half way, because the other ranks would wait for this one in a collective:
    the first is kept, what would follow it is not written, and `finish` raises it.
    """

    def __init__(self, config_params: Any = None) -> None:
        super().__init__(config_params)
        self.name = type(self).__name__
        self.left_out: frozenset[str] = frozenset()
        """Weights of the module that are not saved, by name: where one is tied to another, DeepSpeed leaves out one."""
        self._memory = HostMemory()
        self._background = False
        self._frozen: dict[str, Frozen] = {}
        self._thread: threading.Thread | None = None
        self._facts: dict[str, FileFacts] = {}
        self._error: Exception | None = None

    def reserve(self, num_bytes: int) -> None:
        """Have `num_bytes` of host memory ready for snapshots (`snapshot_bytes`), touched in the background.

        Without it the first save in the background takes the time of the first touch as well.
        """
        self._memory.reserve(num_bytes)

    def begin(self, background: bool) -> None:
        """Start a save. With `background` files wait for `start`, otherwise each is written when it is handed over.

        `finish` must have ended the save before.
        """
        assert self._thread is None, "finish() ends a save before the next begins"
        self._background = background
        self._frozen, self._facts, self._error = {}, {}, None
        self._memory.release_all()

    def create(self, info: CheckpointCommitInfo) -> None:
        """Nothing to prepare."""

    def save(self, state_dict: Any, path: str) -> None:
        """Freeze the state of one file, or write it at once: also when there is no memory to freeze it in."""
        path = os.fspath(path)
        if self.left_out and "module" in state_dict:
            state_dict = {**state_dict, "module": without(state_dict["module"], self.left_out)}
        if self._background:
            try:
                self._frozen[path] = freeze(state_dict, self._memory)
                return
            except OSError:
                pass
        self._write(path, lambda: state_dict)

    def load(self, path: str, map_location: Any = None) -> Any:
        """As DeepSpeed's own engine does."""
        return torch.load(path, map_location=map_location, weights_only=False)

    def commit(self, info: CheckpointCommitInfo) -> bool:
        """Nothing to publish: the caller does."""
        return True

    def preserves_storage_sharing(self) -> bool:
        """False spares DeepSpeed the clones by which it keeps torch.save from writing whole storages."""
        return not self._background

    def start(self) -> None:
        """Write what was frozen, in a thread. Training may go on."""
        if self._frozen:
            self._thread = threading.Thread(target=self._write_frozen, name="write-checkpoint")
            self._thread.start()

    @property
    def writing(self) -> bool:
        """Is the thread still at work?"""
        return self._thread is not None and self._thread.is_alive()

    def finish(self) -> dict[str, FileFacts]:
        """Wait for the thread; the files that this rank has written since `begin`, by path, all of them durable.

        Raises the first error that writing them met, such as an OSError of a full disk.
        """
        if self._thread:
            self._thread.join()
            self._thread = None
        facts, error = self._facts, self._error
        self._frozen, self._facts, self._error = {}, {}, None
        if error:
            raise error
        return facts

    def _write_frozen(self) -> None:
        lower_priority()
        for path, frozen in self._frozen.items():
            self._write(path, frozen.thaw)

    def _write(self, path: str, state: Callable[[], Any]) -> None:
        if self._error:
            return
        try:
            self._facts[path] = write_state(state(), path)
        except Exception as error:
            self._error = error


def write_state(state: Any, path: str) -> FileFacts:
    """torch.save `state` to `path`, durably, and return the checksum of the bytes as they were written.

    Raises OSError, and what torch.save raises for a state that cannot be pickled.
    """
    with open(path, "wb") as raw:
        file = _DigestFile(raw, path)
        torch.save(state, file)
        if file.error:
            raise file.error
        raw.flush()
        os.fsync(raw.fileno())
    fsync_folder(Path(path).parent)
    return FileFacts(size_bytes=file.size_bytes, sha256=file.digest.hexdigest())


class _DigestFile:
    """What torch.save writes to. It never raises, since torch's writer leaves C++ half done then: see `error`."""

    def __init__(self, raw: IO[bytes], path: str) -> None:
        self._raw, self._path = raw, path
        self.digest = hashlib.sha256()
        self.size_bytes = 0
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES):
            if self.error:
                break
            try:
                piece = view[start : start + PIECE_BYTES]
                self._raw.write(piece)
                self.digest.update(piece)
                if not threading.main_thread().is_alive():
                    raise OSError(errno.ECANCELED, "the process ended before its checkpoint was written")
            except OSError as error:
                self.error = OSError(error.errno, error.strerror, self._path)
        self.size_bytes += len(view)
        return len(view)

    def flush(self) -> None:
        """`write_state` flushes."""


def without(state: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """`state` but for `names`."""
    return {name: value for name, value in state.items() if name not in names}


def snapshot_bytes(engine: Any) -> int:
    """Host memory that a snapshot of this rank's part of a checkpoint takes.

    Ask after the first optimizer step: without ZeRO the optimizer has no states before.
    """
    states = []
    if engine.save_non_zero_checkpoint:
        states.append(without(engine.module_state_dict(), frozen_names(engine.module)))
        if not engine.zero_optimization():
            states.append(engine.optimizer.state_dict())
    if engine.save_zero_checkpoint:
        states.append(engine.optimizer.state_dict())
    return SMALL_FILES_BYTES + sum(map(frozen_bytes, states))
