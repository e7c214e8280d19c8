"""The keys and values of a batch that rows leave and join.

Rows are aligned on the right, so that the next token of all has the same column; `keys` and `values` of a layer are
[B, A, S, D] (B rows, A heads, S columns, D size of a head). A layer with a sliding window keeps the last columns only,
and counts all that it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

SPARE_COLUMNS = 64
"""transformers' own layers copy all that they hold at every token; with room ahead it is once in so many."""


class RoomyLayer(DynamicLayer):
    """A layer with room for columns to come. `keys` and `values` are the part of it that is filled."""

    _room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add columns; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.get_seq_length()
        total = used + key_states.shape[2]
        held = self.keys, self.values
        if self._room is None or self._room[0].shape[2] < total or self._room[0].data_ptr() != held[0].data_ptr():
            self._room = tuple(_with_room(*pair, total) for pair in zip(held, (key_states, value_states), strict=True))
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, used:total] = states
        self.keys, self.values = (room[:, :, :total] for room in self._room)
        return self.keys, self.values


def new_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache for a model of `config`."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def can_change_rows(cache: DynamicCache) -> bool:
    """Does it hold nothing but keys and values of attention, column by column?"""
    return all(type(layer) in (RoomyLayer, DynamicSlidingWindowLayer) for layer in cache.layers)


def keep_rows(cache: DynamicCache, rows: Sequence[int], padding: int) -> None:
    """Keep `rows` of the batch, without the first `padding` columns, which none of them needs."""
    for layer in cache.layers:
        seen = layer.get_seq_length() - padding
        indices = torch.tensor(rows, device=layer.keys.device)
        start = layer.keys.shape[2] - min(seen, layer.keys.shape[2])
        layer.keys = layer.keys[:, :, start:].index_select(0, indices)
        layer.values = layer.values[:, :, start:].index_select(0, indices)
        if layer.is_sliding:
            layer.cumulative_length = seen


def join_rows(cache: DynamicCache, others: DynamicCache) -> None:
    """Add the rows of `others` after those of `cache`; whichever has fewer columns is padded on the left."""
    for layer, other in zip(cache.layers, others.layers, strict=True):
        width = max(layer.keys.shape[2], other.keys.shape[2])
        layer.keys = torch.cat([_widened(layer.keys, width), _widened(other.keys, width)])
        layer.values = torch.cat([_widened(layer.values, width), _widened(other.values, width)])
        if layer.is_sliding:
            layer.cumulative_length = max(layer.cumulative_length, other.cumulative_length)


def _with_room(held: torch.Tensor, states: torch.Tensor, total: int) -> torch.Tensor:
    """Room for `total` columns of `states` and some more, the first of them filled with `held`."""
    rows, heads, _, size = states.shape
    room = states.new_empty(rows, heads, total + SPARE_COLUMNS, size)
    if held.numel():
        room[:, :, : held.shape[2]] = held
    return room


def _widened(states: torch.Tensor, width: int) -> torch.Tensor:
    return functional.pad(states, (0, 0, width - states.shape[2], 0))
