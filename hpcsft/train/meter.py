"""What a step cost: throughput, utilisation (MFU), memory, and the time spent waiting for data.

The largest value over the ranks needs no collective of its own: each rank puts its values where the others have zeros,
and the all-reduce that sums everything else leaves the values of all ranks side by side.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hpcsft.attempt.memory import peak_resident_bytes
from hpcsft.data.batches import RowStore
from hpcsft.flops import train_flops
from hpcsft.gpus import peak_flops
from hpcsft.lora import adapter_parameters
from hpcsft.model_shape import ModelShape
from hpcsft.spec.model import LoraSpec
from hpcsft.train.distributed import Ranks


def slots(values: Sequence[float], rank: int, world_size: int) -> list[float]:
    """`values` of this rank among zeros, [world_size x len(values)]: to be summed over the ranks."""
    row = [0.0] * (world_size * len(values))
    row[rank * len(values) : (rank + 1) * len(values)] = values
    return row


def maxima(sums: Sequence[float], num_values: int) -> list[float]:
    """The largest of each of `num_values` values over the ranks, from the sums of their `slots`."""
    return [max(sums[value::num_values]) for value in range(num_values)]


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory so far: that of torch's tensors on a GPU; else what this process had resident."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes()


def gpu_total_gb(device: torch.device) -> float | None:
    """All memory of the GPU in 10^9 bytes; None for a CPU."""
    if device.type != "cuda":
        return None
    return round(torch.cuda.get_device_properties(device).total_memory / 1e9, 3)


@dataclass(frozen=True)
class Measured:
    """One step of the whole run."""

    elapsed_s: float
    tokens: int
    supervised_tokens: int
    flops: float | None
    """Of the model itself, without what is computed again; None for a model whose shape is unknown."""
    peak_flops: float | None
    """What all GPUs together could do in one second; None where it is unknown, as on CPUs."""
    data_s: float
    """Waiting for data, on the rank that waited longest."""
    data_rank: int
    """The rank that waited longest."""
    memory_gb: float
    """Most memory so far in 10^9 bytes, on the rank with most."""

    @property
    def mfu(self) -> float | None:
        """Share of the peak that the model's own operations took."""
        return self.flops / (self.elapsed_s * self.peak_flops) if self.flops and self.peak_flops else None

    def values(self) -> dict[str, float | None]:
        """As metrics.jsonl tells it."""
        return {
            "tokens": self.tokens,
            "supervised_tokens": self.supervised_tokens,
            "tokens_per_s": round(self.tokens / self.elapsed_s, 1),
            "supervised_tokens_per_s": round(self.supervised_tokens / self.elapsed_s, 1),
            "mfu": None if self.mfu is None else round(self.mfu, 4),
            "memory_gb": round(self.memory_gb, 3),
            "data_s": round(self.data_s, 4),
            "data_rank": self.data_rank,
        }


@dataclass(frozen=True)
class Meter:
    """Measures steps. Every rank has one."""

    ranks: Ranks
    rows: RowStore
    shape: ModelShape | None
    peak_flops: float | None
    """Of one GPU."""
    adapters: int | None = None
    """Parameters of LoRA's adapters, if these alone learn."""

    @classmethod
    def of(
        cls, ranks: Ranks, rows: RowStore, config: Mapping[str, Any], dtype: str, lora: LoraSpec | None = None
    ) -> Meter:
        """For a model with this config.json that is computed in `dtype`: only bfloat16's peaks are known."""
        known = ranks.device.type == "cuda" and dtype == "bfloat16"
        peak = peak_flops(torch.cuda.get_device_name(ranks.device)) if known else None
        shape = ModelShape.from_config(config)
        return cls(ranks, rows, shape, peak, adapter_parameters(shape, lora) if shape and lora else None)

    def start(self, micro_batches: Sequence[np.ndarray]) -> StepMeter:
        """A step on these rows, of all ranks, begins."""
        return StepMeter(self, np.concatenate(micro_batches))


class StepMeter:
    """Measures one step."""

    def __init__(self, meter: Meter, rows: np.ndarray):
        self._started_s = time.perf_counter()
        self._meter, self._rows = meter, rows
        self.supervised_tokens = meter.rows.supervised(rows)
        """Of the global batch."""

    def slots(self, data_s: float) -> list[float]:
        """What this rank adds to the all-reduce of the step, in which it waited `data_s` for data: [2 x world_size]."""
        ranks = self._meter.ranks
        return slots([data_s, peak_memory_bytes(ranks.device) / 1e9], ranks.rank, ranks.world_size)

    def finish(self, sums: Sequence[float]) -> Measured:
        """The step is over; `sums` is what the all-reduce made of the `slots` of all ranks."""
        elapsed_s = time.perf_counter() - self._started_s
        data_s, memory_gb = maxima(sums, 2)
        meter, rows = self._meter, self._rows
        tokens, peak = meter.rows.tokens(rows), meter.peak_flops
        squares = int(np.square(meter.rows.lengths[rows], dtype=np.int64).sum())
        shape, adapters = meter.shape, meter.adapters
        flops = train_flops(shape, tokens, self.supervised_tokens, squares, adapters) if shape else None
        return Measured(
            elapsed_s,
            tokens,
            self.supervised_tokens,
            flops,
            peak * meter.ranks.world_size if peak else None,
            data_s,
            sums[::2].index(data_s),
            memory_gb,
        )
