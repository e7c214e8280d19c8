"""What ranks tell each other through the rendezvous store, while there is no process group, or where none can be."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta
from typing import Any

import torch.distributed as dist


class Exchange:
    """One rank's access to the store. Rank 0 collects what all have told, and publishes what they shall hear."""

    def __init__(self, store: dist.Store, rank: int, world_size: int):
        self.store = store
        self.rank = rank
        self.world_size = world_size

    @property
    def leader(self) -> bool:
        """Is this rank 0?"""
        return self.rank == 0

    def tell(self, key: str, value: Any) -> None:
        """Leave `value`, which JSON can hold, for rank 0."""
        self.store.set(f"{key}/{self.rank}", json.dumps(value))

    def collect(self, key: str, limit_s: float) -> dict[int, Any]:
        """What all ranks have told, by rank; after `limit_s` without those that have not."""
        keys = [f"{key}/{rank}" for rank in range(self.world_size)]
        with contextlib.suppress(dist.DistStoreError):
            self.store.wait(keys, timedelta(seconds=limit_s))
            return dict(enumerate(map(json.loads, self.store.multi_get(keys))))
        there = (rank for rank in range(self.world_size) if self.store.check([keys[rank]]))
        return {rank: json.loads(self.store.get(keys[rank])) for rank in there}

    def publish(self, key: str, value: Any) -> None:
        """Let all ranks hear `value`."""
        self.store.set(key, json.dumps(value))

    def hear(self, key: str, limit_s: float) -> Any:
        """What rank 0 has published. DistStoreError after `limit_s`, DistNetworkError if it has gone."""
        self.store.wait([key], timedelta(seconds=limit_s))
        return json.loads(self.store.get(key))
