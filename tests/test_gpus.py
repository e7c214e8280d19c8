"""Device names as drivers give them find their GPU; what computes less than its namesake is not taken for it."""

from __future__ import annotations

import pytest

from hpcsft.gpus import GPUS, gpu_named, gpu_of_device, peak_flops


@pytest.mark.parametrize(
    ("device", "name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-80gb", 312.0),
        ("NVIDIA A100 80GB PCIe", "a100-80gb", 312.0),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb", 312.0),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb", 312.0),
        ("A100-SXM4-40GB", "a100-40gb", 312.0),
        ("NVIDIA H100 80GB HBM3", "h100", 989.4),
        ("NVIDIA H100 PCIe", "h100-pcie", 756.5),
        ("NVIDIA H100 NVL", "h100-nvl", 835.5),
        ("NVIDIA GH200 480GB", "gh200", 989.4),
        ("NVIDIA H200", "h200", 989.4),
        ("NVIDIA H20", "h20", 148.0),
        ("NVIDIA B200", "b200", 2250.0),
        ("NVIDIA A10", "a10", 125.0),
        ("NVIDIA A10G", "a10g", 70.0),
        ("NVIDIA A40", "a40", 149.7),
        ("NVIDIA L4", "l4", 121.0),
        ("NVIDIA L40", "l40", 181.0),
        ("NVIDIA L40S", "l40s", 362.0),
        ("NVIDIA RTX A6000", "rtx-a6000", 154.8),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada", 364.2),
        ("NVIDIA GeForce RTX 4090", "rtx-4090", 165.2),
        ("AMD Instinct MI250X", "mi250x", 191.5),
        ("AMD Instinct MI300X", "mi300x", 1307.4),
        ("Tesla V100-SXM2-32GB", "v100-32gb", None),
        ("Tesla V100-PCIE-16GB", "v100-16gb", None),
        ("Tesla T4", "t4", None),
    ],
)
def test_a_device_is_known_by_its_name(device, name, tflops):
    found = gpu_of_device(device)
    assert found and found.name == name
    assert peak_flops(device) == (tflops * 1e12 if tflops else None)


@pytest.mark.parametrize(
    "device",
    [
        "",
        "Quadro P4000",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
        "GRID A100-10C",
        "NVIDIA A100-10C",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA XA100",
    ],
)
def test_what_is_not_known_has_no_peak(device):
    assert peak_flops(device) is None


def test_names_are_unique_and_found():
    assert len({gpu.name for gpu in GPUS}) == len(GPUS)
    assert all(gpu_named(gpu.name.upper()) is gpu for gpu in GPUS)
    assert gpu_named("a1000") is None
