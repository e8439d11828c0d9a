"""Which CPUs the library's threads are given: never one that is off line or outside the cpuset."""

from __future__ import annotations

import pytest

from rk_gemma_runtime.librkllm.options import usable_cpus

ALL = range(8)


@pytest.mark.parametrize(
    ("allowed", "there", "wanted"),
    [
        (ALL, 8, (4, 5, 6, 7)),
        (range(4, 8), 8, (4, 5, 6, 7)),
        (range(4), 8, (0, 1, 2, 3)),  # a container on the small cores
        ((0, 1, 6, 7), 8, (0, 1, 6, 7)),
        ((2, 5, 7), 8, (2, 5, 7)),
        (range(7), 7, (3, 4, 5, 6)),  # an image that leaves one CPU to another system
        ((0, 7), 8, None),  # fewer than NPU cores: the library's word
        (range(2), 2, None),  # another machine
        (range(16), 16, None),
        (range(8, 16), 8, None),
        ((), 8, None),
    ],
)
def test_the_big_ones_that_are_there_filled_up_with_small_ones(
    allowed: range | tuple[int, ...], there: int, wanted: tuple[int, ...] | None
) -> None:
    assert usable_cpus(frozenset(allowed), there) == wanted
