"""A board with 4 GB is judged alike, whoever is asked: no Gemma fits it beside a desktop."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from doctorkit import readings, tree

from rk_gemma.planning.matrix import matrix
from rk_gemma.planning.sources import plain_board
from rk_gemma_runtime.board import find_profile, read_profile
from rk_gemma_runtime.board.facts import GIB
from rk_gemma_runtime.doctor.report import examine
from rk_gemma_runtime.memory.models import SIZES, find_shape
from rk_gemma_runtime.memory.plan import FITS, NO, TIGHT, make_plan
from rk_gemma_runtime.memory.request import Request

if TYPE_CHECKING:
    from pathlib import Path

SMALL = "orangepi5-4gb"


@pytest.mark.parametrize("model", SIZES)
@pytest.mark.parametrize("context", [512, 4096])
def test_no_gemma_fits_four_gb(model: str, context: int, tmp_path: Path) -> None:
    request = Request(find_shape(model), context=context)
    boards = [plain_board(4), read_profile(find_profile(SMALL)), readings(tree(tmp_path, SMALL)).board()]
    assert [make_plan(request, board).verdict for board in boards] == [NO] * 3
    assert matrix(context, "w8a8", plain_board(16))[model]["4 GB"].verdict == NO


@pytest.mark.parametrize("ram", [3.7, 3.8, 4.0])
@pytest.mark.parametrize("free", [3.0, 3.2, 3.5])
def test_a_small_board_without_a_desktop_is_a_doubt_for_both(ram: float, free: float, tmp_path: Path) -> None:
    memory = {"ram_gb": ram, "available_gb": free}
    found = examine(readings(tree(tmp_path, memory=memory)))
    plan = make_plan(Request(find_shape("gemma-2b")), found.board)
    (told,) = (f for f in found.findings if f.id == "memory")
    assert (plan.verdict, told.severity, found.exit) == (TIGHT, "warning", 0)
    assert "reported not to fit" in plan.reasons[-1].text and "reported not to fit" in told.title


def test_a_small_model_and_a_larger_board_are_not_doubted() -> None:
    board = plain_board(4)
    tiny = replace(find_shape("gemma-2-2b"), layers=1, vocab=1000)
    assert make_plan(Request(tiny), board).verdict == FITS
    roomy = replace(board, memory=replace(board.memory, total=8 * GIB, available=7 * GIB))
    assert make_plan(Request(find_shape("gemma-2b")), roomy).verdict == FITS
