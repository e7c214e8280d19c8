"""Logistic regression on soft targets, with an optional L1 penalty. Pure.

Minimises   sum_i s_i (log(1 + exp(f_i)) - p_i f_i) + l1 |w|_1     with f = w . x,

which for l1 = 1 / C is what liblinear minimises when each row stands twice, as a win of weight s p and as a loss of
weight s (1 - p).  N rows, K features; features come as K columns of N numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

MAX_STEPS = 60
"""Newton's method is there after ten or so. On separable data, for which no weights are best, it never is."""

Column = Sequence[float]
Matrix = list[list[float]]


def predicted(columns: Sequence[Column], weights: Sequence[float]) -> list[float]:
    """Probability of every row."""
    return [_sigmoid(value) for value in _scores(columns, weights)]


def fit(columns: Sequence[Column], targets: Column, sizes: Column, l1: float = 0.0) -> list[float] | None:
    """The K weights (targets p and sizes s as above); None where no finite weights are best."""
    weights = [0.0] * len(columns)
    best = _loss(columns, targets, sizes, weights, l1)
    for _ in range(MAX_STEPS):
        probabilities = predicted(columns, weights)
        gradient = gradient_of(columns, targets, sizes, probabilities)
        step = _penalised_step(gradient, hessian_of(columns, sizes, probabilities), weights, l1)
        if step is None:
            return None
        scale = 1.0
        while True:
            moved = [w + scale * d for w, d in zip(weights, step, strict=True)]
            loss = _loss(columns, targets, sizes, moved, l1)
            if loss <= best or scale < 1e-10:
                break
            scale /= 2
        change = max(abs(a - b) for a, b in zip(moved, weights, strict=True))
        weights, best = moved, min(best, loss)
        if change < 1e-10:
            return weights
    return None


def gradient_of(columns: Sequence[Column], targets: Column, sizes: Column, probabilities: Column) -> list[float]:
    """Of the sum above without the penalty: K numbers."""
    errors = [s * (q - p) for s, q, p in zip(sizes, probabilities, targets, strict=True)]
    return [math.fsum(map(mul, errors, column)) for column in columns]


def hessian_of(columns: Sequence[Column], sizes: Column, probabilities: Column) -> Matrix:
    """Of the same: K x K."""
    return outer([s * q * (1 - q) for s, q in zip(sizes, probabilities, strict=True)], columns)


def outer(sizes: Column, columns: Sequence[Column]) -> Matrix:
    """sum_i s_i x_i x_i^T: K x K."""
    weighted = [list(map(mul, sizes, column)) for column in columns]
    return [[math.fsum(map(mul, left, right)) for right in columns] for left in weighted]


def solve(matrix: Matrix, right: Sequence[float]) -> list[float] | None:
    """x of matrix x = right, by elimination with pivots; None for a singular matrix."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    largest = max((abs(value) for row in matrix for value in row), default=0.0)
    for place in range(size):
        pivot = max(range(place, size), key=lambda k: abs(rows[k][place]))
        if abs(rows[pivot][place]) <= 1e-12 * largest or largest == 0:
            return None
        rows[place], rows[pivot] = rows[pivot], rows[place]
        for other in range(size):
            if other != place:
                factor = rows[other][place] / rows[place][place]
                rows[other] = [a - factor * b for a, b in zip(rows[other], rows[place], strict=True)]
    return [rows[k][size] / rows[k][k] for k in range(size)]


def _penalised_step(gradient: list[float], hessian: Matrix, weights: list[float], l1: float) -> list[float] | None:
    """Newton's step; with a penalty the minimum of the penalised quadratic model, by coordinate descent."""
    if not l1:
        return solve(hessian, [-g for g in gradient])
    step = [0.0] * len(weights)
    for _ in range(200):
        largest = 0.0
        for k, row in enumerate(hessian):
            curve = row[k] + 1e-12
            slope = gradient[k] + math.fsum(map(mul, row, step))
            aim = curve * (weights[k] + step[k]) - slope
            shrunk = math.copysign(max(abs(aim) - l1, 0.0), aim) / curve - weights[k]
            largest = max(largest, abs(shrunk - step[k]))
            step[k] = shrunk
        if largest < 1e-12:
            break
    return step


def _scores(columns: Sequence[Column], weights: Sequence[float]) -> list[float]:
    totals = [0.0] * len(columns[0])
    for weight, column in zip(weights, columns, strict=True):
        totals = [total + weight * value for total, value in zip(totals, column, strict=True)]
    return totals


def _loss(columns: Sequence[Column], targets: Column, sizes: Column, weights: Sequence[float], l1: float) -> float:
    terms = (s * (_softplus(f) - p * f) for s, p, f in zip(sizes, targets, _scores(columns, weights), strict=True))
    return math.fsum(terms) + l1 * math.fsum(map(abs, weights))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
