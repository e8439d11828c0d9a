"""w8a8: what holds for every weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rk_gemma.export.quantise import quantise
from rk_gemma_runtime.memory.dtypes import GROUPS

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Smaller magnitudes than 2^-100 underflow in the scale; no weight is that small and not zero.
weight = st.one_of(
    st.just(0.0), st.floats(2.0**-100, 2.0**19, width=32), st.floats(-(2.0**19), -(2.0**-100), width=32)
)


def blocks(cols: int) -> st.SearchStrategy[NDArray[np.float32]]:
    return st.integers(1, 3).flatmap(lambda rows: hnp.arrays(np.float32, (rows, cols), elements=weight))


@given(
    st.sampled_from([(0, 24), (8, 24), (24, 24), (1, 5)]).flatmap(lambda g: st.tuples(st.just(g[0]), blocks(g[1])))
)
@settings(max_examples=100, deadline=None)
def test_properties(case: tuple[int, NDArray[np.float32]]) -> None:
    group, block = case
    kept = block.copy()
    values, scales = quantise(block, group)
    rows, cols = block.shape
    width = group or cols
    assert np.array_equal(block, kept)
    assert (values.dtype, values.shape) == (np.dtype("i1"), block.shape)
    assert (scales.dtype, scales.shape) == (np.dtype("f4"), (rows, cols // width))
    assert values.min() >= -127
    wide = scales.astype(np.float64).repeat(width, axis=1)
    assert (np.abs(values * wide - block) <= wide * (0.5 + 1e-4)).all()
    peaks = np.abs(block).reshape(rows, -1, width).max(axis=2)
    np.testing.assert_array_equal(scales, peaks / np.float32(127))
    tops = np.abs(values.astype(int)).reshape(rows, -1, width).max(axis=2)
    assert ((tops == 127) | (peaks == 0)).all()


@given(blocks(16))
@settings(max_examples=30, deadline=None)
def test_negation_and_row_order(block: NDArray[np.float32]) -> None:
    values, scales = quantise(block, 8)
    minus, same = quantise(-block, 8)
    assert np.array_equal(minus, -values)
    assert np.array_equal(same, scales)
    backwards, _ = quantise(block[::-1], 8)
    assert np.array_equal(backwards, values[::-1])


def test_zero_rows_and_groups() -> None:
    block = np.zeros((2, 8), np.float32)
    block[1, 6] = -2.0
    values, scales = quantise(block, 4)
    assert scales.tolist() == [[0.0, 0.0], [0.0, np.float32(2) / np.float32(127)]]
    assert values.tolist() == [[0] * 8, [0] * 6 + [-127, 0]]


def test_rounds_half_to_even() -> None:
    values, _ = quantise(np.array([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]], np.float32), 0)
    assert values.tolist() == [[127, 0, 2, 2, 0, -2]]


@pytest.mark.parametrize("dtype", ["w8a8", "w8a8_g128", "w8a8_g256", "w8a8_g512"])
def test_groups_are_the_ones_of_the_npu(dtype: str) -> None:
    assert GROUPS[dtype] == int(dtype.partition("_g")[2] or 0)
    assert len(GROUPS) == 4
