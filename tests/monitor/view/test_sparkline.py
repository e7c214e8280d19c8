"""Guards the course of a loss in one line."""

from __future__ import annotations

import pytest

from hpcsft.monitor.view.sparkline import ASCII_SPARKS, SPARKS, sparkline


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([1.0], SPARKS[0]),
        ([2.0, 2.0, 2.0], SPARKS[0] * 3),
        ([0.0, 7.0], SPARKS[0] + SPARKS[-1]),
        (list(range(8)), SPARKS),
        ([3.0, 2.0, 1.0, -4.0], "█▇▆▁"),
    ],
)
def test_it_goes_from_the_lowest_to_the_highest(values, expected):
    assert sparkline(values, 80) == expected


def test_many_values_are_means_of_their_share():
    assert sparkline([8.0, 0.0, 5.0, 5.0, 9.0, 9.0], 3) == "▁▂█"
    for num in range(1, 400, 7):
        line = sparkline([float(n) for n in range(num)], 50)
        assert len(line) == min(num, 50) and list(line) == sorted(line, key=SPARKS.index)


def test_no_room_is_no_line():
    assert sparkline([1.0, 2.0], 0) == ""
    assert len(ASCII_SPARKS) == len(SPARKS) and ASCII_SPARKS.isascii()
