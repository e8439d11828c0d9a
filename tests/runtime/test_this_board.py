"""The few facts of the board that a load looks at: described, read, or not known."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from rk_gemma_runtime.board import live, profile_names, read_profile, this_board
from rk_gemma_runtime.board.live import DESCRIBED, memory_of
from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_described_board_has_this_process_s_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DESCRIBED, "rock5b-driver-0.9.6")
    board = this_board()
    assert (board.npu.driver, board.name) == ("0.9.6", "rock5b-driver-0.9.6")
    assert board.limits.nofile_hard in {resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 30}


def test_a_board_that_nobody_described_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DESCRIBED, "toaster")
    with pytest.raises(UsageError, match=r"unknown board profile 'toaster'; choose .*orangepi5-16gb"):
        this_board()


@pytest.mark.parametrize("driver", ["0.9.8", None])
def test_memory_counts_only_beside_a_driver_and_nothing_is_guessed(
    driver: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DESCRIBED, raising=False)
    monkeypatch.setattr(live, "_driver", lambda: driver)
    board = this_board()
    assert (board.memory.total is None, board.memory.available is None) == (driver is None, driver is None)
    assert board.npu.node is None and board.npu.access is None and board.npu.iommu is None


@pytest.mark.parametrize("text", ["", "MemTotal", "MemTotal: 16G", "MemTotal: -5 kB", "MemTotal: kB", "\0" * 99])
def test_a_lie_is_not_known(text: str) -> None:
    assert memory_of(text).total is None


def test_what_is_read_is_in_bytes() -> None:
    memory = memory_of("MemTotal:       16000 kB\nMemAvailable:   8000 kB\nSwapFree: 1 kB\nCmaTotal: 2 kB\n")
    assert (memory.total, memory.available, memory.swap_free, memory.cma) == (16384000, 8192000, 1024, 2048)


def test_a_misspelt_key_is_no_larger_board(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("memory:\n  ram_gb: 8\n  availble_gb: 2\n")
    with pytest.raises(UsageError, match=r"unknown key memory\.availble_gb; choose one of available_gb"):
        read_profile(path)


def test_names_are_told_once() -> None:
    assert len(profile_names()) == len(set(profile_names())) >= 12
