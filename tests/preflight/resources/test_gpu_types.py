"""What sites call their GPUs."""

from __future__ import annotations

import pytest

from hpcsft.preflight.resources.gpu_types import gpus_of_type


@pytest.mark.parametrize(
    ("gres_type", "names"),
    [
        ("a100", ["a100-40gb", "a100-80gb"]),
        ("a100_80gb", ["a100-80gb"]),
        ("a100-80gb", ["a100-80gb"]),
        ("nvidia_a100-sxm4-80gb", ["a100-80gb"]),
        ("nvidia_a100-pcie-40gb", ["a100-40gb"]),
        ("tesla_v100", ["v100-16gb", "v100-32gb"]),
        ("h100", ["h100"]),
        ("nvidia_h100_80gb_hbm3", ["h100"]),
        ("h100_pcie", ["h100-pcie"]),
        ("a6000", ["rtx-a6000"]),
        ("rtx3090", ["rtx-3090"]),
        ("mi300x", ["mi300x"]),
        ("k80", []),
        ("gpu", []),
        (None, []),
    ],
)
def test_types(gres_type, names):
    assert [gpu.name for gpu in gpus_of_type(gres_type)] == names


@pytest.mark.parametrize(("gres_type", "memory_gb"), [("a100_1g.10gb", 10), ("3g.40gb", 40), ("h100-2g.20gb", 20)])
def test_slices_have_the_memory_of_their_name(gres_type, memory_gb):
    (gpu,) = gpus_of_type(gres_type)
    assert (gpu.name, gpu.memory_gb) == (gres_type, memory_gb) and gpu.peak_tflops
