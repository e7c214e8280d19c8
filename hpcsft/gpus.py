"""Known GPUs: their memory, and what they compute at most. Pure.

Peaks are those of the makers' data sheets for bfloat16 matrices with float32 sums, without sparsity.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Gpu(NamedTuple):
    """One kind of GPU."""

    name: str
    """As `hpcsft plan --gpu` takes it."""
    pattern: str
    """What of its device name tells it, as a regular expression for whole words."""
    memory_gb: int
    """As it is sold: "80 GB" are 80 GiB, of which the driver keeps about one for itself."""
    peak_tflops: float | None
    """10**12 operations per s; None for a GPU that does not compute in bfloat16."""


GPUS = (
    Gpu("a100-40gb", r"A100.*40GB", 40, 312.0),
    Gpu("a100-80gb", r"A[18]00", 80, 312.0),
    Gpu("h100-pcie", r"H100 PCIe", 80, 756.5),
    Gpu("h100-nvl", r"H100 NVL", 94, 835.5),
    Gpu("gh200", r"GH200", 96, 989.4),
    Gpu("h100", r"H[18]00", 80, 989.4),
    Gpu("h200-nvl", r"H200 NVL", 141, 835.5),
    Gpu("h200", r"H200", 141, 989.4),
    Gpu("h20", r"H20", 96, 148.0),
    Gpu("b200", r"B200", 180, 2250.0),
    Gpu("a10", r"A10", 24, 125.0),
    Gpu("a10g", r"A10G", 24, 70.0),
    Gpu("a30", r"A30", 24, 165.0),
    Gpu("a40", r"A40", 48, 149.7),
    Gpu("l4", r"L4", 24, 121.0),
    Gpu("l40", r"L40", 48, 181.0),
    Gpu("l40s", r"L40S", 48, 362.0),
    Gpu("rtx-a5000", r"RTX A5000", 24, 111.1),
    Gpu("rtx-a6000", r"RTX A6000", 48, 154.8),
    Gpu("rtx-6000-ada", r"RTX 6000 Ada", 48, 364.2),
    Gpu("rtx-3090", r"RTX 3090", 24, 71.0),
    Gpu("rtx-4090", r"RTX 4090", 24, 165.2),
    Gpu("rtx-5090", r"RTX 5090", 32, 209.5),
    Gpu("mi210", r"MI210", 64, 181.0),
    Gpu("mi250x", r"MI250X", 64, 191.5),  # a card is two devices: this is one of them
    Gpu("mi250", r"MI250", 64, 181.0),
    Gpu("mi300x", r"MI300X", 192, 1307.4),
    Gpu("v100-16gb", r"V100.*16GB", 16, None),
    Gpu("v100-32gb", r"V100", 32, None),
    Gpu("t4", r"T4", 16, None),
)
"""The first whose pattern matches a device name counts."""

OTHERS = re.compile(r"\b(MIG|GRID|Laptop|Max-Q)\b|\b(Ti|SUPER|D)$|-\d+[ABCQ]$", re.IGNORECASE)
"""What tells slices and other versions of a GPU from the one that they are named after."""


def gpu_of_device(device_name: str) -> Gpu | None:
    """The GPU that torch.cuda.get_device_name calls `device_name`; None if it is not known."""
    if OTHERS.search(device_name):
        return None
    return next((gpu for gpu in GPUS if re.search(rf"\b{gpu.pattern}\b", device_name, re.IGNORECASE)), None)


def gpu_named(name: str) -> Gpu | None:
    """The GPU called `name` in GPUS; None if there is none."""
    return next((gpu for gpu in GPUS if gpu.name == name.lower()), None)


def peak_flops(device_name: str) -> float | None:
    """Peak bfloat16 FLOP/s, dense, of the GPU that torch.cuda.get_device_name calls `device_name`.

    None where it is not known or the GPU has no bfloat16, as a V100.
    """
    gpu = gpu_of_device(device_name)
    return gpu.peak_tflops * 1e12 if gpu and gpu.peak_tflops else None
