"""A device tree that has the NPU switched off: it is named, whichever kernel runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from doctorkit import put, readings, tree

from rk_gemma_runtime.doctor.report import examine

if TYPE_CHECKING:
    from pathlib import Path

    from rk_gemma_runtime.doctor.findings import Finding

WITHOUT = {"driver": "none", "node": "none"}
MAINLINE = ("npu@fdab0000", "npu@fdac0000", "npu@fdad0000")


def worst(folder: Path, nodes: dict[str, str | None]) -> Finding:
    for node, status in nodes.items():
        put(folder, f"proc/device-tree/{node}/compatible", "rockchip,rk3588-rknn-core\0")
        if status is not None:
            put(folder, f"proc/device-tree/{node}/status", f"{status}\0")
    report = examine(readings(folder))
    assert report.exit == 4
    return report.findings[0]


@pytest.mark.parametrize("status", ["disabled", "fail", "fail-sss", "reserved"])
@pytest.mark.parametrize("place", ["", "soc/", "soc@0/"])
@pytest.mark.parametrize("names", [MAINLINE, ("npu@fdab0000",), ("rknpu@fdab0000",)], ids=len)
def test_it_is_named(names: tuple[str, ...], place: str, status: str, tmp_path: Path) -> None:
    found = worst(tree(tmp_path, npu=WITHOUT), {f"{place}{name}": status for name in names})
    assert (found.id, found.severity) == ("driver_missing", "error")
    assert found.evidence[-1] == f"switched off in the device tree: {', '.join(names)}"
    assert 'status = "okay"' in found.remedy and "vendor's kernel" in found.remedy


@pytest.mark.parametrize("status", ["okay", "ok", None])
def test_a_node_that_is_on_is_not_accused(status: str | None, tmp_path: Path) -> None:
    found = worst(tree(tmp_path, npu=WITHOUT), dict.fromkeys(MAINLINE, status))
    assert found.id == "driver_missing" and "switched off" not in " ".join((*found.evidence, found.remedy))


def test_a_driver_without_a_node(tmp_path: Path) -> None:
    """The vendor's kernel: another one would not help."""
    folder = tree(tmp_path)
    for path in sorted([*folder.glob("sys/class/drm/*"), *folder.glob("rk-gemma/nodes")], reverse=True):
        for file in sorted(path.rglob("*"), reverse=True) if path.is_dir() else [path]:
            file.rmdir() if file.is_dir() else file.unlink()
    found = worst(folder, {"npu@fdab0000": "disabled"})
    assert found.title == "the rknpu driver is loaded and has no node"
    assert found.evidence[-1].endswith(": npu@fdab0000") and found.remedy.startswith("the device tree must have")
