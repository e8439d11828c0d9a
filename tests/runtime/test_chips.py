"""Which chip a device tree names: every entry of `compatible` counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from doctorkit import put, readings, tree

from rk_gemma_runtime.board.chips import chip_of, platform_of
from rk_gemma_runtime.board.profile import find_profile, load_tree, read_profile
from rk_gemma_runtime.doctor.report import examine
from rk_gemma_runtime.doctor.tree import write_tree

if TYPE_CHECKING:
    from pathlib import Path

# What a board says, and the platform that its weights are made for.
COMPATIBLE = {
    "radxa,e52c rockchip,rk3582 rockchip,rk3588s": "RK3588",
    "rockchip,rk3582": "RK3588",
    "rockchip,rk3583": "RK3588",
    "rockchip,rk3588s2": "RK3588",
    "khadas,edge2 rockchip,rk3588s2 rockchip,rk3588": "RK3588",
    "friendlyelec,cm3588 rockchip,rk3588f": "RK3588",
    "mixtile,blade3 rockchip,rk3588j": "RK3588",
    "vendor,board rockchip,rk9999 rockchip,rk3588": "RK3588",
    "rockchip,rk3588s-orangepi-5 rockchip,rk3588": "RK3588",
    "rockchip,rk3588-evb1-v10": "RK3588",
    "ROCKCHIP,RK3588": "RK3588",
    "rockchip,rk3576-evb rockchip,rk3576": "RK3576",
    "rockchip,rk3576s": "RK3576",
    "rockchip,rk3562j": "RK3562",
    "rockchip,rv1126b": "RV1126B",
    "rockchip,rk3568": "RK3568",
    "rockchip,rv1126": "RV1126",
    "raspberrypi,5-model-b brcm,bcm2712": None,
    "radxa,rock-5b": None,
}


@pytest.mark.parametrize("words", COMPATIBLE)
def test_the_platform_of_a_device_tree(words: str, tmp_path: Path) -> None:
    entries, expected = words.split(), COMPATIBLE[words]
    chip = chip_of(entries)
    assert (platform_of(chip) if chip else None) == expected
    put(tree(tmp_path), "proc/device-tree/compatible", "".join(f"{entry}\0" for entry in entries))
    found = examine(readings(tmp_path))
    assert found.board.npu.platform == (expected or "unknown")
    assert (found.exit == 0) == (expected == "RK3588"), list(found.lines())


@pytest.mark.parametrize("soc", ["rk3582", "rk3583", "rk3588", "rk3588s", "rk3588s2", "rk3576", "rk3568"])
def test_a_profile_and_its_tree_name_one_platform(soc: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"soc: {soc}\nboard: Some board\n")
    described = read_profile(path)
    profile = load_tree(find_profile("orangepi5-16gb"))
    profile["soc"] = soc
    write_tree(profile, tmp_path / "tree")
    assert readings(tmp_path / "tree").board().npu.platform == described.npu.platform == platform_of(soc)


def test_a_chip_with_fewer_cores_is_not_asked_for_the_others(tmp_path: Path) -> None:
    put(tree(tmp_path, cpu={"online": "0-5"}), "proc/device-tree/compatible", "rockchip,rk3582\0")
    assert "cpu_offline" not in {f.id for f in examine(readings(tmp_path)).findings}
