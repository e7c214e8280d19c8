"""Digests of inputs, computed beside other work: hashlib lets other threads run while it works."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

from hpcsft.data.files import state_of
from hpcsft.digest import BLOCK_BYTES, Interrupted, sha256_of
from hpcsft.hub.names import DataName
from hpcsft.provenance.inputs import (
    HubData,
    InputFile,
    Inputs,
    hub_names,
    input_paths,
    read_inputs,
    state_now,
    write_whole,
)
from hpcsft.records import write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec

MOST_THREADS = 4
"""Of one task: a shared filesystem gives no more for more readers of one node."""
POLL_INTERVAL_S = 0.5


def share(sizes: Mapping[str, int], index: int, tasks: int) -> list[str]:
    """The files of task `index`: each file is given, the largest first, to the task that has the fewest bytes."""
    loads = [0] * tasks
    mine = []
    for path in sorted(sizes, key=lambda path: (-sizes[path], path)):
        least = loads.index(min(loads))
        loads[least] += sizes[path]
        if least == index:
            mine.append(path)
    return mine


class InputHashing:
    """Computes one task's share of provenance/inputs.json in threads, and keeps each digest as soon as it is there.

    What an earlier attempt has kept is not computed again unless size or time of the file have changed.
    """

    def __init__(self, run: RunDir, spec: ExperimentSpec, index: int, tasks: int):
        self.run, self.spec, self.index = run, spec, index
        self._given_up = threading.Event()
        self._lock = threading.Lock()
        known = read_inputs(run)
        wanted = {path: state for path, where in input_paths(spec).items() if (state := state_now(path, where))}
        digests = {file.path: file for file in known.files if file.sha256}
        mine = [wanted[path] for path in share({path: s.num_bytes for path, s in wanted.items()}, index, tasks)]
        self._files = [digests[state.path] for state in mine if _is_known(state, digests)]
        self._missing = [state for state in mine if not _is_known(state, digests)]
        self._hub: list[HubData] = []
        self._others = wanted.keys() != {file.path for file in known.files}
        self._pool = ThreadPoolExecutor(_threads(), thread_name_prefix="sha256")
        self._work: list[Future[None]] = []

    @property
    def missing_bytes(self) -> int:
        """What is still to be read."""
        return sum(state.num_bytes for state in self._missing)

    def __enter__(self) -> InputHashing:
        self._work = [self._pool.submit(self._add, state) for state in self._missing]
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        self._pool.shutdown(cancel_futures=True)

    def finish(self, between: Callable[[], None]) -> None:
        """Wait for the rest, with `between` called meanwhile, and write the document if it is whole."""
        self._hub = [_hub_data(where, name) for where, name in hub_names(self.spec)] if self.index == 0 else []
        while wait(self._work, POLL_INTERVAL_S).not_done:
            between()
        for work in self._work:
            work.result()
        if self._work or self._others or not self.run.inputs.exists():
            self._write()
            write_whole(self.run, self.spec)

    def _add(self, state: InputFile) -> None:
        try:
            sha256 = sha256_of(state.path, self._given_up)
        except Interrupted:
            return
        except OSError:
            sha256 = None
        with self._lock:
            self._files.append(state.model_copy(update={"sha256": sha256}))
            if state.num_bytes > BLOCK_BYTES:  # worth keeping on its own
                self._write()

    def _write(self) -> None:
        self.run.provenance_folder.mkdir(mode=0o700, exist_ok=True)
        write_json(self.run.inputs_part(self.index), Inputs(files=self._files, hub=self._hub))


def _hub_data(where: str, name: str) -> HubData:
    return HubData(where=where, name=name, revision=DataName.parse(name).revision, fingerprint=state_of(name))


def _is_known(state: InputFile, digests: Mapping[str, InputFile]) -> bool:
    return state.path in digests and state.same_state(digests[state.path])


def _threads() -> int:
    cpus = os.environ.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0))
    return max(1, min(MOST_THREADS, int(cpus)))
