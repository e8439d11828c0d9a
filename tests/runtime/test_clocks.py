"""The clock of RAM: what a low one costs, what a missing node means, and what to do; plan and doctor alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from doctorkit import NAMES, put, readings, tree

from rk_gemma_runtime.board.facts import Board, Clock, Clocks
from rk_gemma_runtime.doctor.report import examine
from rk_gemma_runtime.memory.models import find_shape
from rk_gemma_runtime.memory.pace import at_clocks, notes
from rk_gemma_runtime.memory.plan import make_plan
from rk_gemma_runtime.memory.request import Request
from rk_gemma_runtime.memory.speed import Speed
from rk_gemma_runtime.printable import WIDTH, fold

if TYPE_CHECKING:
    from pathlib import Path

MHZ = 10**6
NONE = {"ddr_hz": "none", "ddr_max_hz": "none"}
# Keys of a profile's `clocks`: severity of the finding, a word of its remedy, whether the plan has a note of RAM.
CASES: dict[str, tuple[dict[str, Any], str, str, bool]] = {
    "pinned": ({}, "ok", "", False),
    "parked": ({"ddr_hz": 528 * MHZ, "ddr_governor": "dmc_ondemand"}, "warning", "echo performance", True),
    "parked by hand": ({"ddr_hz": 528 * MHZ, "ddr_governor": "userspace"}, "warning", "echo performance", True),
    "powersave": ({"ddr_hz": 534 * MHZ, "ddr_governor": "powersave"}, "warning", "echo performance", True),
    "half way": ({"ddr_hz": 1560 * MHZ, "ddr_governor": "dmc_ondemand"}, "warning", "echo performance", True),
    "limited": ({"ddr_hz": 528 * MHZ, "ddr_governor": "performance"}, "warning", "max_freq", True),
    "high by chance": ({"ddr_governor": "dmc_ondemand"}, "note", "echo performance", False),
    "no node": (NONE, "warning", "boot firmware", True),
    "no node of either": ({**NONE, "npu_hz": "none", "npu_max_hz": "none"}, "warning", "boot firmware", False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_clock_of_ram_is_judged(case: str, tmp_path: Path) -> None:
    clocks, severity, remedy, noted = CASES[case]
    report = examine(readings(tree(tmp_path, clocks=clocks)))
    (found,) = (f for f in report.findings if f.id == "ddr_clock")
    assert found.severity == severity and remedy in found.remedy
    assert severity == "ok" or any("5.5 against 11.2 tokens/s" in line for line in found.evidence)
    said = [note for note in notes(report.board) if "RAM" in note]
    assert bool(said) == noted, said
    assert report.exit == 0, "a slow board is a usable one"


def test_boot_firmware_without_the_call_is_named(tmp_path: Path) -> None:
    put(tree(tmp_path, clocks=NONE), "rk-gemma/dmesg", "[ 3.1] rockchip-dmc dmc: current ATF version 0x0\n")
    (found,) = (f for f in examine(readings(tmp_path)).findings if f.id == "ddr_clock")
    assert any("0x0" in line for line in found.evidence) and any("no call" in line for line in found.evidence)


@pytest.mark.parametrize("driver", ["none", "0.9.8"])
def test_a_machine_without_the_driver_needs_no_clock(driver: str, tmp_path: Path) -> None:
    clocks = {**NONE, "npu_hz": "none", "npu_max_hz": "none"}
    found = examine(readings(tree(tmp_path, clocks=clocks, npu={"driver": driver, "node": "/dev/dri/renderD129"})))
    assert ("ddr_clock" in {f.id for f in found.findings}) == (driver != "none")


def test_the_measurement_is_met() -> None:
    parked = Clocks(ddr=Clock(528 * MHZ, 2112 * MHZ, "dmc_ondemand"), known=True)
    slow = at_clocks(Speed(11.2, 134.7, 1.0, 128), parked)
    assert (round(slow.decode, 1), round(slow.prefill)) == (5.5, 97)
    assert at_clocks(Speed(11.2, 134.7, 1.0, 128), Clocks()) == Speed(11.2, 134.7, 1.0, 128)


@pytest.mark.parametrize(
    ("npu", "throttled", "slower"),
    [
        (Clock(600 * MHZ, 1000 * MHZ, "userspace"), True, True),
        (Clock(300 * MHZ, 1000 * MHZ, "rknpu_ondemand"), False, False),
        (Clock(300 * MHZ, 1000 * MHZ, "rknpu_ondemand"), True, True),
        (Clock(1000 * MHZ, 1000 * MHZ, "performance"), False, False),
        (Clock(None, None, None), False, False),
    ],
)
def test_an_npu_that_follows_the_load_is_not_slow(npu: Clock, throttled: bool, slower: bool) -> None:
    board = Board(clocks=Clocks(npu, Clock(2112 * MHZ, 2112 * MHZ, "performance"), throttled, True))
    plan = make_plan(Request(find_shape("gemma-2-2b")), board)
    assert (plan.now.prefill < plan.speed.prefill) == slower
    assert bool(notes(board)) == slower


@pytest.mark.parametrize("name", NAMES)
def test_no_line_is_wider_than_a_terminal(name: str, tmp_path: Path) -> None:
    from rk_gemma.planning.matrix import matrix, matrix_lines
    from rk_gemma.planning.picture import plan_lines

    report = examine(readings(tree(tmp_path, name)))
    lines = [*report.lines(), *matrix_lines(matrix(4096, "w8a8", report.board))]
    lines += matrix_lines(matrix(4096, "w8a8", report.board, one=True))
    for model in ("gemma-2b", "gemma-2-27b"):
        lines += plan_lines(make_plan(Request(find_shape(model)), report.board))
    assert [line for line in lines if len(line) > WIDTH] == []


def test_a_folded_command_can_be_copied() -> None:
    command = (
        "for p in policy4 policy6; do echo performance | sudo tee /sys/devices/system/cpu/$p/scaling_governor; done"
    )
    lines = list(fold(command, "         > "))
    assert len(lines) > 1 and all(line.endswith(" \\") for line in lines[:-1])
    joined = " ".join(line.removesuffix(" \\").strip() for line in lines)
    assert joined.removeprefix("> ") == command
    assert not any("\\" in line for line in fold("use a board with 8 GB or more " * 9, "> "))
