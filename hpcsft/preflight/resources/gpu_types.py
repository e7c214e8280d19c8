"""Which GPUs a partition has, by what the cluster calls them. Pure."""

from __future__ import annotations

import re

from hpcsft.gpus import GPUS, Gpu, gpu_named, gpu_of_device

SLICE = re.compile(r"\b\d+g\.(\d+)gb\b")
"""A slice of a GPU (MIG), such as 1g.10gb: its memory is in its name."""


def gpus_of_type(gres_type: str | None) -> list[Gpu]:
    """The GPUs that a gres type may stand for; empty where it tells nothing.

    Sites write a100, a100_80gb, nvidia_a100-sxm4-80gb, tesla_v100. Where it names no memory and there are versions
    of different memory, it may be any of them.

    >>> [gpu.name for gpu in gpus_of_type("a100")], [gpu.name for gpu in gpus_of_type("nvidia_h100_80gb_hbm3")]
    (['a100-40gb', 'a100-80gb'], ['h100'])
    """
    text = re.sub(r"[_-]+", " ", (gres_type or "").lower())
    found = gpu_named(gres_type or "") or gpu_of_device(text) or gpu_of_device(re.sub(r"\brtx ?", "rtx ", text))
    if part := SLICE.search(text):
        whole = found or next(gpu for gpu in GPUS if gpu.peak_tflops)
        return [whole._replace(name=str(gres_type), memory_gb=int(part[1]))]
    if found is None:
        found = gpu_of_device(f"rtx {text}")
    if found is None:
        return []
    if re.search(r"\d ?gb", text):
        return [found]
    family = found.name.partition("-")[0]
    versions = [gpu for gpu in GPUS if re.fullmatch(rf"{re.escape(family)}-\d+gb", gpu.name)]
    return versions if found in versions else [found]
