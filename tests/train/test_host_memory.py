"""The memory that snapshots are taken into: touched beforehand, taken again by every save, never shared by two."""

from __future__ import annotations

import threading

import pytest
import torch

from hpcsft.train.host_memory import HostMemory, room_for


def test_buffers_are_apart_and_as_large_as_asked_for():
    memory = HostMemory()
    sizes = [1, 0, 64, 65, 1000]
    buffers = memory.take(sizes)
    assert [buffer.numel() for buffer in buffers] == sizes
    for number, buffer in enumerate(buffers):
        buffer.fill_(number)
    assert all((buffer == number).all() for number, buffer in enumerate(buffers))
    assert {buffer.data_ptr() % 64 for buffer in buffers if buffer.numel()} == {0}


def test_what_was_reserved_is_touched_in_the_background_and_used_by_every_save():
    memory = HostMemory()
    sizes = [1000, 3000]
    memory.reserve(room_for(sizes))
    first = [buffer.data_ptr() for buffer in memory.take(sizes)]
    assert "touch-host-memory" not in {thread.name for thread in threading.enumerate()}
    memory.release_all()
    assert [buffer.data_ptr() for buffer in memory.take(sizes)] == first
    assert first[0] not in [buffer.data_ptr() for buffer in memory.take(sizes)], "nobody has released it"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_memory_is_page_locked_where_there_is_a_gpu():
    memory = HostMemory()
    memory.reserve(1000)
    assert all(buffer.is_pinned() for buffer in [*memory.take([1000]), *memory.take([5000])])
