"""A copy of a state in host memory that nothing changes any more, and the way back.

Objects are pickled at once, tensors are copied into buffers. What comes back equals what went in, with two differences:
tensors that lay on a GPU are CPU tensors, and a storage holds only the parts that belong to a tensor of the state.
"""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from dataclasses import dataclass
from typing import IO, Any

import torch
from deepspeed.accelerator import get_accelerator

from hpcsft.train.host_memory import HostMemory, room_for

LARGEST_ITEM_BYTES = 16


@dataclass(frozen=True)
class _View:
    """A tensor as a part of a buffer; offset and stride in elements."""

    buffer: int
    offset: int
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    requires_grad: bool
    is_parameter: bool


@dataclass(frozen=True)
class Frozen:
    """A state that was frozen."""

    objects: bytes
    views: list[_View]
    buffers: list[torch.Tensor]

    def thaw(self) -> Any:
        """The state, its tensors in the buffers."""
        return _Unpickler(self).load()


def freeze(state: Any, memory: HostMemory) -> Frozen:
    """A copy of `state` in `memory`. Raises OSError when there is no memory to be had."""
    pickled = io.BytesIO()
    pickler = _Pickler(pickled)
    pickler.dump(state)
    views, sources = _arrange(pickler.tensors)
    buffers = memory.take([source.numel() for source in sources])
    for buffer, source in zip(buffers, sources, strict=True):
        buffer.copy_(source, non_blocking=True)
    get_accelerator().synchronize()
    return Frozen(pickled.getvalue(), views, buffers)


def frozen_bytes(state: Any) -> int:
    """Host memory that `freeze` would take for `state`."""
    pickler = _Pickler(io.BytesIO())
    pickler.dump(state)
    return room_for([source.numel() for source in _arrange(pickler.tensors)[1]])


class _Pickler(pickle.Pickler):
    """Pickles all but the tensors, which it collects; in the pickle stands a number for each, and its attributes."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.tensors: list[torch.Tensor] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> tuple[int, dict[str, Any] | None] | None:
        # Sparse, quantized and other tensors pickle themselves, as a rule into plain ones.
        if type(obj) not in (torch.Tensor, torch.nn.Parameter) or not _is_plain(obj):
            return None
        if id(obj) in self._numbers:
            return self._numbers[id(obj)], None
        self._numbers[id(obj)] = len(self.tensors)
        self.tensors.append(obj)
        return self._numbers[id(obj)], vars(obj) or None


class _Unpickler(pickle.Unpickler):
    """The way back."""

    def __init__(self, snapshot: Frozen) -> None:
        super().__init__(io.BytesIO(snapshot.objects))
        self._snapshot = snapshot
        self._tensors: dict[int, torch.Tensor] = {}

    def persistent_load(self, pid: tuple[int, dict[str, Any] | None]) -> torch.Tensor:
        number, attributes = pid
        if number not in self._tensors:
            view = self._snapshot.views[number]
            storage = self._snapshot.buffers[view.buffer].untyped_storage()
            tensor = torch.empty(0, dtype=view.dtype).set_(storage, view.offset, view.shape, view.stride)
            if view.is_parameter:
                tensor = torch.nn.Parameter(tensor, requires_grad=view.requires_grad)
            self._tensors[number] = tensor.requires_grad_(view.requires_grad)
        if attributes:
            vars(self._tensors[number]).update(attributes)
        return self._tensors[number]


def _is_plain(tensor: torch.Tensor) -> bool:
    """Is it a strided view of a storage and nothing else?"""
    special = tensor.is_quantized or tensor.is_meta or tensor.is_conj() or tensor.is_neg()
    return tensor.layout is torch.strided and not special


def _arrange(tensors: list[torch.Tensor]) -> tuple[list[_View], list[torch.Tensor]]:
    """How the tensors lie in buffers, and for each buffer the bytes that it copies (uint8, 1 dimension).

    Tensors whose bytes overlap or touch share a buffer, as they share a storage now; bytes of no tensor are left out.
    """
    spans: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for number, tensor in enumerate(tensors):
        start = tensor.storage_offset() * tensor.element_size()
        steps = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
        end = start + (steps + 1) * tensor.element_size() if tensor.numel() else start
        # Aligned, so that tensors of another dtype in the same buffer begin at a whole element.
        aligned = start // LARGEST_ITEM_BYTES * LARGEST_ITEM_BYTES
        spans[tensor.untyped_storage()._cdata].append((aligned, end, number))
    views: dict[int, _View] = {}
    sources: list[torch.Tensor] = []
    for members in spans.values():
        members.sort()
        while members:
            first, end, _ = members[0]
            taken = []
            while members and members[0][0] <= end:
                end = max(end, members[0][1])
                taken.append(members.pop(0)[2])
            for number in taken:
                views[number] = _view(tensors[number], len(sources), first)
            storage = tensors[taken[0]].untyped_storage()
            source = torch.empty(0, dtype=torch.uint8, device=storage.device)
            sources.append(source.set_(storage, first, (end - first,)))
    return [views[number] for number in range(len(tensors))], sources


def _view(tensor: torch.Tensor, buffer: int, first_byte: int) -> _View:
    offset = tensor.storage_offset() - first_byte // tensor.element_size()
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    shape, stride = tensor.shape, tensor.stride()
    return _View(buffer, offset, shape, stride, tensor.dtype, tensor.requires_grad, is_parameter)
