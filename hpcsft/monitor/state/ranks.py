"""Ranks that give no sign, and those that the others wait for. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hpcsft.records import Record

SILENT_S = 90.0
"""A rank's record is renewed every 30 s while it makes steps; so much behind the others is a silence."""
ALL_SILENT_S = 180.0
"""Clocks of two hosts may differ, and a shared filesystem shows a file late: only a long silence of all counts."""
QUIET_PHASES = frozenset({"start", "convert", "save", "export"})
"""In these a rank gives one sign, at the beginning."""
SLOW_SHARE = 0.1
"""A rank that makes the others wait for its data for this share of a step is named."""


class RankTrouble(Record):
    """What there is to say about one rank, or about all."""

    rank: int | None
    """None: all of them."""
    host: str
    text: str


def rank_troubles(
    beats: Sequence[Mapping[str, Any]], train: Mapping[str, Any], since: float, now: float
) -> list[RankTrouble]:
    """Ranks to name, from heartbeat/RANK.json of an attempt that began at `since`. Times in seconds since the epoch."""
    times = {beat["rank"]: _moment(beat["updated"]) for beat in beats}
    live = [beat for beat in beats if times[beat["rank"]] >= since]
    found = []
    if live:
        newest = max(times[beat["rank"]] for beat in live)
        middle = statistics.median(times[beat["rank"]] for beat in live)
        noisy = [beat for beat in live if beat["phase"] not in QUIET_PHASES]
        if noisy and now - newest > ALL_SILENT_S:
            found.append(RankTrouble(rank=None, host="", text=f"no rank has given a sign for {now - newest:.0f} s"))
        for beat in noisy:
            behind_s = middle - times[beat["rank"]]
            if behind_s > SILENT_S:
                where = f"{beat['phase']} {beat['step']}"
                text = f"silent for {behind_s + max(0.0, now - middle):.0f} s, in {where}"
                found.append(RankTrouble(rank=beat["rank"], host=beat["host"], text=text))
    return found + _slow(beats, train)


def _slow(beats: Sequence[Mapping[str, Any]], train: Mapping[str, Any]) -> list[RankTrouble]:
    rank, data_s = train.get("data_rank"), train.get("data_s")
    step_s = train["tokens"] / train["tokens_per_s"] if train.get("tokens_per_s") else None
    if rank is None or not data_s or not step_s or data_s < SLOW_SHARE * step_s:
        return []
    host = next((beat["host"] for beat in beats if beat["rank"] == rank), "")
    text = f"slow: waits {data_s:.1f} s of a step of {step_s:.1f} s for its data"
    return [RankTrouble(rank=rank, host=host, text=text)]


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
