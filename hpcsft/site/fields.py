"""The values that Slurm's clients print, in numbers and lists. Pure; what is missing or odd becomes None."""

from __future__ import annotations

from hpcsft.slurm_client import duration_s

NOTHING = ("", "N/A", "NONE", "(null)", "(NULL)", "None", "UNLIMITED", "INFINITE", "ALL")
"""How Slurm writes that there is no value, or no limit."""


def text(value: str | None) -> str | None:
    """The value; None for what Slurm writes where there is none."""
    return None if value is None or value.strip() in NOTHING else value.strip()


def whole(value: str | None) -> int | None:
    """A whole number, such as 12 or `30 sec`; None for anything else.

    >>> whole("1001"), whole("30 sec"), whole("UNLIMITED")
    (1001, 30, None)
    """
    first = (value or "").split()[:1]
    return int(first[0]) if first and first[0].isdecimal() else None


def seconds(value: str | None) -> int | None:
    """A duration in seconds.

    >>> seconds("00:01:30"), seconds("30 sec"), seconds("1-00:00:00"), seconds("NONE")
    (90, 30, 86400, None)
    """
    return duration_s((value or "").removesuffix(" sec").strip())


def minutes(value: str | None) -> float | None:
    """A duration in minutes, as partitions and QOS give their limits."""
    found = seconds(value)
    return None if found is None else found / 60


def names(value: str | None) -> list[str] | None:
    """Names with commas between them; None where Slurm writes that there are none, or all."""
    found = text(value)
    return None if found is None else [name for name in found.split(",") if name]


def mode(value: str | None) -> str | None:
    """A PreemptMode by its deciding word: `GANG,SUSPEND` is SUSPEND, `CANCEL,WITHIN` is CANCEL."""
    words = {word.strip().upper() for word in (value or "").split(",")}
    return next((word for word in ("REQUEUE", "CANCEL", "SUSPEND", "GANG", "OFF") if word in words), None)
