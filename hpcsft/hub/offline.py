"""What every job is told before it loads anything: nothing is to be had from the hub, and where data sets are."""

from __future__ import annotations

from collections.abc import MutableMapping

from hpcsft.hub.fetched import Fetched

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Variables with the user's token."""


def go_offline(environment: MutableMapping[str, str], fetched: Fetched) -> None:
    """Let the libraries of Hugging Face keep off the network, and take the data sets that were `fetched`.

    To be called before they are loaded. Whoever sets HF_HUB_OFFLINE=0 in cluster.env has it their way, without a token.
    """
    environment.setdefault("HF_HUB_OFFLINE", "1")
    environment["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    environment["HF_HUB_DISABLE_TELEMETRY"] = "1"
    for name in TOKENS:
        environment.pop(name, None)
    if fetched.data:
        environment["HF_DATASETS_CACHE"] = next(iter(fetched.data.values())).cache
