"""Guards that what the seed decides is the same everywhere, and that only equal conversations share a key."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from hpcsft.data.formats import Turn
from hpcsft.data.hashing import conversation_key, mix

ALL = 2**64 - 1


def splitmix64(value: int) -> int:
    """The finalizer in Python's own integers."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & ALL
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & ALL
    return value ^ (value >> 31)


@pytest.mark.parametrize("seeds", [(0,), (42,), (42, 3), (-1, 10**30)])
def test_mixing_is_splitmix64_to_the_last_bit(seeds):
    values = [0, 1, 2, 12345678901234567890, 2**63, ALL]
    constant = hashlib.blake2b("/".join(map(str, seeds)).encode(), digest_size=8).digest()
    expected = [splitmix64(value ^ int.from_bytes(constant, "little")) for value in values]
    assert mix(np.array(values, dtype=np.uint64), *seeds).tolist() == expected
    assert mix(np.array([-1]), *seeds).tolist() == expected[-1:]


def test_mixing_never_changes_from_one_release_to_the_next():
    """Or a run that goes on after an update would go on with other rows."""
    assert mix(np.arange(3), 1).tolist() == [5495048541703994039, 11959521705424178562, 10146233790261436354]
    assert mix(np.arange(0), 1).tolist() == []


def test_different_values_stay_different_and_seeds_scramble_differently():
    values = np.arange(100_000)
    scrambled = [mix(values, *seeds) for seeds in ((1,), (2,), (1, 2), (12,))]
    assert all(len(np.unique(hashes)) == len(values) for hashes in scrambled)
    assert len({tuple(np.argsort(hashes)[:10]) for hashes in scrambled}) == 4


def test_mixed_numbers_are_spread_evenly():
    """In the whole and in each part: a share held out is a share of every kind of conversation."""
    below = mix(np.arange(1_000_000), 7) < np.uint64(2**64 // 10)
    assert below.mean() == pytest.approx(0.1, abs=0.001)
    assert np.abs(below.reshape(100, -1).mean(axis=1) - 0.1).max() < 0.015


def test_mixing_leaves_its_input_alone():
    keys = np.arange(3, dtype=np.uint64)
    mix(keys, 1)
    assert keys.tolist() == [0, 1, 2]


def test_equal_conversations_share_a_key():
    turns = [Turn("user", "你好"), Turn("assistant", "Hello")]
    assert (
        conversation_key(turns) == conversation_key([("user", "你好"), ("assistant", "Hello")]) == 4870801303210233178
    )
    assert conversation_key([Turn("user", "\ud800")]) != conversation_key([Turn("user", "\udc00")])


@pytest.mark.parametrize(
    "other",
    [
        [("user", "ab"), ("assistant", "d")],
        [("user", "a"), ("assistant", "bc")],
        [("user", "ab"), ("user", "c")],
        [("assistant", "c"), ("user", "ab")],
        [("user", "ab")],
        [("user", "ab"), ("assistant", "c"), ("user", "")],
        [("user", "ab assistant 1 c")],
        [("user", "abassistant 1 c")],
    ],
)
def test_other_words_roles_or_borders_are_another_conversation(other):
    assert conversation_key(other) != conversation_key([("user", "ab"), ("assistant", "c")])
