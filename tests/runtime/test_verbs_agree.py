"""What plan says of a board and what doctor says of it are one thing: for every profile, chip and lack, and for a
capture from which any one file is missing or unreadable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from doctorkit import NAMES, put, readings, tree

from rk_gemma_runtime.doctor.report import examine
from rk_gemma_runtime.memory.cures import cures
from rk_gemma_runtime.memory.models import SIZES, find_shape
from rk_gemma_runtime.memory.plan import NO, carried_out, make_plan
from rk_gemma_runtime.memory.request import Request

if TYPE_CHECKING:
    from pathlib import Path

CHIPS = [
    "radxa,e52c rockchip,rk3582 rockchip,rk3588s", "rockchip,rk3588s2", "rockchip,rk3588f", "rockchip,rk3583",
    "rockchip,rk3576", "rockchip,rk3566", "brcm,bcm2712", "rockchip,rk9999",
]  # fmt: skip
LACKS: list[dict[str, dict[str, Any]]] = [
    {"npu": {"driver": "none", "node": "none"}},
    {"npu": {"driver": "0.9.7"}},
    {"npu": {"access": False}},
    {"npu": {"iommu": False}},
    {"npu": {"occupied": {0: "4294963200"}, "occupied_by": "frigate"}},
    {"memory": {"ram_gb": 4, "available_gb": 3.5}},
    {"memory": {"ram_gb": 16, "available_gb": 1.5}},
    {"limits": {"nofile_soft": 256, "nofile_hard": 512}, "npu": {"fds": 600}},
    {"clocks": {"ddr_hz": "none", "ddr_max_hz": "none"}},
    {"clocks": {"ddr_hz": 528000000, "npu_hz": 300000000}},
]


def disagreement(folder: Path) -> str:
    """What plan and doctor say otherwise of a tree; "" if they say one thing."""
    report = examine(readings(folder))
    plans = [carried_out(make_plan(Request(find_shape(size), limit=8192), report.board)) for size in SIZES]
    loads = any(plan.verdict != NO for plan in plans)
    if report.usable("npu") == loads:
        return ""
    said = [finding.title for finding in report.findings if finding.severity == "error"]
    return f"plan: {[plan.verdict for plan in plans]} {plans[0].reasons}; doctor: {report.exit} {said}"


@pytest.mark.parametrize("words", CHIPS)
def test_every_chip(words: str, tmp_path: Path) -> None:
    put(tree(tmp_path), "proc/device-tree/compatible", "".join(f"{word}\0" for word in words.split()))
    assert not disagreement(tmp_path)


@pytest.mark.parametrize("number", range(len(LACKS)))
def test_every_lack(number: int, tmp_path: Path) -> None:
    assert not disagreement(tree(tmp_path, **LACKS[number]))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_any_one_file_may_be_missing(name: str, tmp_path: Path) -> None:
    folder = tree(tmp_path, name)
    assert not disagreement(folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for instead in (None, b"\xff\xfe\0nonsense"):
            path.unlink()
            if instead is not None:
                path.write_bytes(instead)
            assert not disagreement(folder), (path.relative_to(folder), instead, disagreement(folder))
            path.write_bytes(content)


@pytest.mark.parametrize("name", ["orangepi5-16gb", "iommu-off", "no-permission"])
@pytest.mark.parametrize("lost", ["proc/meminfo", "rk-gemma/nodes", "sys/class/drm/renderD129/device/uevent",
                                  "proc/device-tree/compatible", "sys/module/rknpu/version"])  # fmt: skip
def test_a_file_that_matters_is_missing(lost: str, name: str, tmp_path: Path) -> None:
    (tree(tmp_path, name) / lost).unlink(missing_ok=True)
    assert not disagreement(tmp_path)


def test_a_driver_without_a_node_has_a_cure(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    (folder / "sys/class/drm/renderD129/device/uevent").unlink()
    plan = make_plan(Request(find_shape("gemma-2-2b")), readings(folder).board())
    assert plan.verdict == NO and any("rk-gemma doctor" in cure for cure in cures(plan))


def test_nothing_at_all(tmp_path: Path) -> None:
    assert not disagreement(tmp_path)
