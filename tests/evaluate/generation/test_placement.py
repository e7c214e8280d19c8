"""Guards on how many GPUs a model is put. To put it there needs GPUs, which the tests have not."""

from __future__ import annotations

import pytest

from hpcsft.evaluate.generation.placement import fits, place
from tests.architectures import folders

GIB = 2**30


@pytest.mark.parametrize(
    ("model", "free", "expected"),
    [
        (14, [39], 1),
        (14, [39, 39], 1),  # one is enough: layers on several compute one after the other
        (60, [79], 1),
        (70, [79], 0),
        (70, [79, 79], 2),
        (140, [79, 79, 79, 79], 3),
        (14, [10, 39], 2),
        (700, [79] * 8, 0),
    ],
)
def test_a_model_takes_as_few_gpus_as_hold_it(model, free, expected):
    assert fits(model * GIB, [gib * GIB for gib in free]) == expected


def test_without_a_gpu_a_model_stays_where_it_is():
    model = folders.make("qwen2", 100, {"bos_token_id": 1, "eos_token_id": 2})
    assert place(model, print) is model
    assert model.device.type == "cpu"
