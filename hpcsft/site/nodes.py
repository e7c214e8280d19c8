"""What `scontrol show node -o` prints, as kinds of nodes for each partition. Pure, and quick for thousands of nodes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from hpcsft.site.fields import names, whole
from hpcsft.site.records import NodeKind

UNUSABLE = {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "UNKNOWN", "FUTURE", "NOT_RESPONDING"}
"""Words of a node's state with which it takes no job until somebody has seen to it."""
STARTING = {"POWERING_UP", "POWERED_DOWN", "POWERING_DOWN", "POWER_UP", "POWER_DOWN", "POWER"}
"""Words for a node that is switched off, and on again when a job needs it."""
SYMBOLS = "*~#!%$@^+-"
"""What Slurm appends to a state; an asterisk says that the node does not respond."""
FREE_TEXT = (" Reason=", " Comment=", " Extra=")
"""Fields in which administrators write what they like, names of other fields included."""


class Alike(NamedTuple):
    """What nodes must have in common to be of one kind."""

    cpus: int
    memory_mb: int
    gpus: int
    gpu_type: str | None
    features: tuple[str, ...]


def parse_nodes(output: str) -> dict[str, list[NodeKind]]:
    """Partition -> its kinds of nodes, the most numerous first."""
    members: dict[str, dict[Alike, list[tuple[str, bool]]]] = defaultdict(lambda: defaultdict(list))
    for line in output.splitlines():
        for free in FREE_TEXT:
            line = line.partition(free)[0]
        name = _field(line, "NodeName")
        if not name:
            continue
        gpus, gpu_type = parse_gpus(_field(line, "Gres"))
        alike = Alike(
            cpus=whole(_field(line, "CPUEfctv")) or whole(_field(line, "CPUTot")) or 0,
            memory_mb=whole(_field(line, "RealMemory")) or 0,
            gpus=gpus,
            gpu_type=gpu_type,
            features=tuple(names(_field(line, "ActiveFeatures")) or names(_field(line, "AvailableFeatures")) or ()),
        )
        usable = is_usable(_field(line, "State"))
        for partition in names(_field(line, "Partitions")) or []:
            members[partition][alike].append((name, usable))
    return {partition: _kinds(alike) for partition, alike in members.items()}


def _kinds(found: dict[Alike, list[tuple[str, bool]]]) -> list[NodeKind]:
    kinds = [
        NodeKind(
            count=len(nodes),
            usable=sum(usable for _, usable in nodes),
            names=host_list(name for name, _ in nodes),
            **{**alike._asdict(), "features": list(alike.features)},
        )
        for alike, nodes in found.items()
    ]
    return sorted(kinds, key=lambda kind: -kind.count)


def _field(line: str, name: str) -> str:
    """The value of the first field of that name; empty if there is none."""
    sign = f" {name}="
    return f" {line}".partition(sign)[2].partition(" ")[0]


def is_usable(state: str) -> bool:
    """Is a node of this state, such as MIXED or IDLE+CLOUD+POWERED_DOWN, neither down, drained nor silent?

    >>> is_usable("IDLE+CLOUD+POWERED_DOWN"), is_usable("MIXED+DRAIN"), is_usable("IDLE*")
    (True, False, False)
    """
    words = {word.strip(SYMBOLS) for word in state.upper().split("+")}
    if words & STARTING:  # of the cloud or to save power: nobody answers yet, and a job may have it
        return not words & (UNUSABLE - {"NOT_RESPONDING"})
    return "*" not in state and not words & UNUSABLE


def parse_gpus(gres: str) -> tuple[int, str | None]:
    """Number and type of a node's GPUs; no type where the site gives none, or they are of several types.

    >>> parse_gpus("gpu:a100:4(S:0-1),nvme:1"), parse_gpus("gpu:4"), parse_gpus("(null)")
    ((4, 'a100'), (4, None), (0, None))
    """
    count, types = 0, set()
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        parts = [part for part in item.split(":") if part != "no_consume"]
        if parts[0] != "gpu":
            continue
        number = parts[-1] if parts[-1].isdecimal() else "1"  # `gpu` and `gpu:a100` are one
        count += int(number)
        types.add(parts[1] if len(parts) > 1 and not parts[1].isdecimal() else None)
    return count, types.pop() if len(types) == 1 else None


def host_list(hosts: Iterable[str]) -> str:
    """Host names in Slurm's short form, in the order of their numbers.

    >>> host_list(["n1", "n3", "n2", "gpu", "n10"])
    'gpu,n[1-3,10]'
    """
    groups: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    plain = []
    for host in hosts:
        found = re.fullmatch(r"(.*?)(\d{1,9})(\D*)", host)
        if found:
            head, number, tail = found.groups()
            groups[head, tail, len(number) if number.startswith("0") else 0].append(int(number))
        else:
            plain.append(host)
    short = [f"{head}{_numbers(sorted(numbers), width)}{tail}" for (head, tail, width), numbers in groups.items()]
    return ",".join(sorted(plain + short))


def _numbers(numbers: list[int], width: int) -> str:
    """Such as 7, or [1-3,10]."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    parts = [f"{first:0{width}d}" + (f"-{last:0{width}d}" if last > first else "") for first, last in ranges]
    return parts[0] if len(numbers) == 1 else f"[{','.join(parts)}]"
