"""Pseudo-random numbers that depend on nothing but their input: no state, no library's generator, no order of calls.

They decide which conversations are held out and in which order rows are learnt, so they must be the same on every
machine, for every version of numpy, and for every number of tasks and ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def mix(values: np.ndarray, *seeds: int) -> np.ndarray:
    """Scramble integers [N] (taken as uint64) -> uint64 [N], one scramble for each list of seeds.

    The finalizer of splitmix64 (Steele, Lea and Flood 2014) after an exclusive or with a digest of the seeds. It is a
    bijection: different values stay different.
    """
    mixed = values.astype(np.uint64) ^ np.uint64(_digest("/".join(map(str, seeds)).encode()))
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def conversation_key(turns: Iterable[tuple[str, str]]) -> int:
    """64 bits that turns of the same roles and texts share, and others practically never."""
    parts = [(role, text.encode("utf-8", "surrogatepass")) for role, text in turns]
    return _digest(b"".join(b"%s %d %s" % (role.encode(), len(text), text) for role, text in parts))


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
