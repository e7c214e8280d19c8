"""Guards the cross-entropy that never has all logits: the same loss and gradients as with them, for plain, normalised
and half-precision weights, whatever the chunks.
"""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch.nn import functional

from hpcsft.models import cross_entropy
from hpcsft.models.cross_entropy import installed_kernel, linear_cross_entropy
from hpcsft.models.heads import LossHead, NormHead
from tests.benchmarks.train_memory import LiveBytes

N, H, V = 70, 16, 300


def make(dtype: torch.dtype, n: int = N) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(n, H, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, H, generator=generator).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(0, V, (n,), generator=generator)


def gradients(loss: torch.Tensor, *tensors: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss * 0.5, tensors))


@pytest.fixture(params=[1, 7, 32, 1000])
def chunk(request, monkeypatch) -> int:
    monkeypatch.setattr(cross_entropy, "FEWEST_POSITIONS", 1)
    monkeypatch.setattr(cross_entropy, "LOGITS_PER_CHUNK", request.param * V)
    return request.param


def test_loss_and_gradients_are_those_of_all_logits(chunk):
    hidden, weight, targets = make(torch.float32)
    plain = functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    found = linear_cross_entropy(hidden, weight, targets)
    assert found.item() == pytest.approx(plain.item(), rel=1e-6)
    for mine, theirs in zip(gradients(found, hidden, weight), gradients(plain, hidden, weight), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_frozen_weight_gets_no_gradient_and_no_memory_for_one(chunk):
    """With LoRA; that of Baichuan2's head would take 1 GB."""
    hidden, weight, targets = make(torch.float32)
    plain = functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    peaks = []
    for learns in (True, False):
        weight.requires_grad_(learns)
        with LiveBytes(torch.nn.Module()) as live:
            found = linear_cross_entropy(hidden, weight, targets)
        peaks.append(live.peak)
        torch.testing.assert_close(gradients(found, hidden), gradients(plain, hidden), rtol=1e-5, atol=1e-6)
        plain = functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    assert peaks[0] - peaks[1] == weight.nbytes


def test_half_precision_is_as_exact_as_with_all_logits(chunk):
    """Against float64: chunks may round more often, but not to another result."""
    hidden, weight, targets = make(torch.bfloat16)
    wide = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    truth = functional.cross_entropy(wide[0] @ wide[1].T, targets, reduction="sum")
    plain = functional.cross_entropy((hidden @ weight.T).float(), targets, reduction="sum")
    found = linear_cross_entropy(hidden, weight, targets)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(plain.item(), rel=1e-6)
    losses = (found, hidden, weight), (plain, hidden, weight), (truth, *wide)
    for mine, theirs, exact in zip(*(gradients(*loss) for loss in losses), strict=True):
        assert mine.dtype == torch.bfloat16
        errors = [(tensor.double() - exact).norm() / exact.norm() for tensor in (mine, theirs)]
        assert errors[0] < 0.02
        assert chunk == 1 or errors[0] < 2 * errors[1]


def test_logits_far_beyond_the_exponential_are_no_infinity():
    hidden, weight, targets = make(torch.float32)
    found = linear_cross_entropy(hidden * 1e4, weight, targets)
    plain = functional.cross_entropy(hidden @ weight.T * 1e4, targets, reduction="sum")
    assert found.isfinite() and found.item() == pytest.approx(plain.item(), rel=1e-5)


def test_a_nan_stays_a_nan():
    hidden, weight, targets = make(torch.float32)
    with torch.no_grad():
        hidden[3, 2] = float("nan")
    assert linear_cross_entropy(hidden, weight, targets).isnan()


def test_without_positions_the_loss_is_zero_and_so_are_the_gradients():
    hidden, weight, targets = make(torch.float32, 0)
    loss = linear_cross_entropy(hidden, weight, targets)
    assert loss.item() == 0
    hidden_grad, weight_grad = gradients(loss, hidden, weight)
    assert hidden_grad.shape == (0, H) and weight_grad.shape == (V, H) and not weight_grad.any()


def test_without_gradients_none_are_made(monkeypatch):
    hidden, weight, targets = make(torch.float32)
    made: list[tuple[int, ...]] = []
    zeros = torch.zeros_like
    monkeypatch.setattr(torch, "zeros_like", lambda tensor: made.append(tensor.shape) or zeros(tensor))
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, targets)
    plain = functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6) and not made


def test_the_gradient_becomes_the_parameters_own_without_a_copy():
    hidden, weight, targets = make(torch.float32)
    pointers = []
    loss = linear_cross_entropy(hidden, weight, targets)
    pointers.append(loss.grad_fn.gradients[1].data_ptr())
    loss.backward()
    assert weight.grad.data_ptr() == pointers[0]


@pytest.mark.parametrize("normalized", [False, True])
def test_the_head_gives_the_loss_of_its_own_logits(normalized):
    torch.manual_seed(0)
    head = NormHead(H, V) if normalized else torch.nn.Linear(H, V, bias=False)
    hidden, _, targets = make(torch.float32)
    positions = torch.arange(0, N, 3)
    plain = functional.cross_entropy(head(hidden)[positions], targets[positions], reduction="sum")
    expected = gradients(plain, hidden, head.weight)
    scorer = LossHead(head, None)
    assert scorer.weight is head.weight
    torch.testing.assert_close(scorer(hidden), head(hidden))
    with scorer.scoring(positions, targets[positions]):
        found = scorer(hidden[None, positions])
    assert found.item() == pytest.approx(plain.item(), rel=1e-6)
    for mine, theirs in zip(gradients(found, hidden, head.weight), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_rows_of_a_normalised_head_count_by_their_direction_alone():
    head = NormHead(H, V)
    hidden, _, _ = make(torch.float32)
    before = head(hidden)
    with torch.no_grad():
        head.weight *= torch.rand(V, 1) + 0.5
    torch.testing.assert_close(head(hidden), before)


def test_kernels_are_taken_where_they_are_installed(monkeypatch):
    chosen = installed_kernel.__wrapped__
    assert chosen(torch.bfloat16) is None
    for name, kernels in {"cut_cross_entropy": ("_cut_cross_entropy", None), "liger_kernel": ("_liger",) * 2}.items():
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace(name=name)
        monkeypatch.setitem(sys.modules, name, module)
        found = [chosen(dtype) for dtype in (torch.bfloat16, torch.float32)]
        assert [kernel and kernel.__name__ for kernel in found] == list(kernels)
