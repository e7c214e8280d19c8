"""Which faults come, and in which order: a pure function of the seed."""

from __future__ import annotations

import random
from collections.abc import Collection

from tests.chaos.cluster_faults import Controller, NodeDown, Preempt, Zombie
from tests.chaos.faults import Cancel, Corrupt, DiskFull, Fault, Kill

VARIANTS: dict[type[Fault], tuple[str, ...]] = {
    Preempt: ("0", "20", "0+usr2", "20+usr2"),
    Kill: ("any", "save"),
    NodeDown: ("",),
    Zombie: ("down", "stepd", "timeout"),
    Corrupt: ("flip", "truncate", "delete"),
    DiskFull: ("",),
    Controller: ("freeze+kill", "restart+kill", "freeze+preempt", "restart+preempt"),
    Cancel: ("running", "pending", "saving"),
}
KINDS = tuple(fault.kind for fault in VARIANTS)
GAP_STEPS = (3, 25)
"""New steps between the return of the run and the next fault."""
START_STEPS, END_STEPS = 10, 200


def draw_faults(rng: random.Random, count: int, kinds: Collection[str] = KINDS) -> list[Fault]:
    """`count` faults of the given kinds: every variant once before any comes again."""
    deck = [(fault, variant) for fault, variants in VARIANTS.items() for variant in variants if fault.kind in kinds]
    drawn: list[Fault] = []
    while len(drawn) < count:
        rng.shuffle(deck)
        drawn += [fault(variant) for fault, variant in deck]
    return drawn[:count]


def needed_steps(faults: list[Fault]) -> int:
    """Steps that a run must have so that all faults find it running."""
    return START_STEPS + END_STEPS + sum(fault.steps + GAP_STEPS[1] for fault in faults)
