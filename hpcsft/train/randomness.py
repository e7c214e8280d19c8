"""The state of every random number generator of a rank, as plain tensors and numbers."""

from __future__ import annotations

import random
from typing import Any

import numpy
import torch


def random_states() -> dict[str, Any]:
    """States of the generators of torch (CPU and this rank's GPU), numpy and Python."""
    name, keys, *rest = numpy.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(keys.astype("int64")), *rest),
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Go on where `random_states` was."""
    name, keys, *rest = states["numpy"]
    torch.set_rng_state(states["torch"])
    numpy.random.set_state((name, keys.numpy().astype("uint32"), *rest))
    random.setstate(states["python"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def seed_anew(seed: int) -> None:
    """Start all generators from `seed`, where there is no state to go on from."""
    torch.manual_seed(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed)
