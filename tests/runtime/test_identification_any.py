"""Identification on files that are anything: an answer or a LibraryError, soon, and nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from librarykit import SDK, elf
from runtimekit import patient

from rk_gemma_runtime.errors import LibraryError
from rk_gemma_runtime.librkllm.abi import LAYOUTS
from rk_gemma_runtime.librkllm.identify import Identity, identify

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow  # the fast tests stay under half a minute

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
WHOLE = elf(
    exports=LAYOUTS["1.3.0"].functions,
    needed=["libm.so.6", "libc.so.6"],
    tail=b"\0" + SDK.format("1.3.0").encode() + b"\0" + b"1.3.0\0",
)
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), max_size=6)
# Where most of what is read stands: headers, and the tables that they point to.
FRONT = 2048
EDGE = 2600


def answer(path: Path, data: bytes, limit_s: float = 0) -> Identity | None:
    """Identified in less than a second of this process; None for a LibraryError."""
    path.write_bytes(data)
    start = time.process_time()
    try:
        return identify(path, limit_s=limit_s)
    except LibraryError as error:
        assert str(error).startswith(f"{path}: ")
        return None
    finally:
        assert time.process_time() - start < patient(1)


def altered(data: bytes, changes: list[tuple[int, int]], within: int) -> bytes:
    """`data` with some bytes of its first `within` changed."""
    copy = bytearray(data)
    for where, value in changes:
        copy[where % min(within, len(copy))] = value
    return bytes(copy)


@SHARED
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes(tmp_path: Path, data: bytes, begins_well: bool) -> None:
    assert answer(tmp_path / "any.so", (b"\x7fELF" if begins_well else b"") + data) is None


@SHARED
@given(st.integers(0, len(WHOLE) - 1))
def test_any_truncation(tmp_path: Path, length: int) -> None:
    assert answer(tmp_path / "any.so", WHOLE) is not None
    assert answer(tmp_path / "any.so", WHOLE[:length]) is None


@SHARED
@given(CHANGES, st.sampled_from([64, 300, len(WHOLE)]))
def test_any_change(tmp_path: Path, changes: list[tuple[int, int]], within: int) -> None:
    found = answer(tmp_path / "any.so", altered(WHOLE, changes, within))
    assert found is None or found.problem is not None  # it was not tried


@pytest.mark.board
@SHARED
@given(CHANGES, st.booleans())
def test_any_change_of_a_real_library(
    simulator: Callable[[str], Path], tmp_path: Path, changes: list[tuple[int, int]], at_the_end: bool
) -> None:
    data = simulator("1.3.0").read_bytes()
    half = altered(data[::-1], changes, EDGE)[::-1] if at_the_end else altered(data, changes, FRONT)
    answer(tmp_path / "any.so", half)


@pytest.mark.board
@settings(SHARED, max_examples=25)
@given(CHANGES)
def test_any_change_of_the_headers_of_one_that_is_tried(
    simulator: Callable[[str], Path], tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    data = altered(simulator("1.3.0").read_bytes(), changes, FRONT)
    found = answer(tmp_path / "any.so", data, limit_s=patient(1))
    if found is not None and found.problem is None:
        assert found.layout == "1.3.0"
