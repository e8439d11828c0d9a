"""The boards in the repository: each reads, says where it is from, and shows what it describes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from doctorkit import NAMES, readings, tree
from runtimekit import ROOT

from rk_gemma_runtime.board.profile import find_profile, load_tree, read_profile

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / "board" / "profiles"
PAGE = 1024  # /proc/meminfo counts in kB
KEYS = {
    "npu": ("driver", "platform", "node", "access", "group", "iommu"),
    "memory": ("ram_gb", "available_gb", "swap_gb", "swap_free_gb", "cma_mb"),
    "limits": ("nofile_soft", "nofile_hard"),
    "cpu": ("online", "big", "governor", "big_khz", "big_max_khz", "features"),
    "clocks": ("npu_hz", "npu_max_hz", "npu_governor", "ddr_hz", "ddr_max_hz", "ddr_governor"),
    "thermal": ("soc_c", "npu_c", "throttled"),
}


def test_there_are_enough_and_their_names_are_their_files() -> None:
    assert len(NAMES) >= 14
    assert [load_tree(path)["name"] for path in sorted(FOLDER.glob("*.yaml"))] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_has_what_the_doctor_needs(name: str) -> None:
    profile = load_tree(find_profile(name))
    assert all(profile[key] for key in ("name", "board", "soc", "kernel"))
    for part, keys in KEYS.items():
        assert set(keys) <= set(profile[part]), part


def test_every_key_is_in_the_page() -> None:
    page = (ROOT / "docs" / "profiles.md").read_text()
    described = set(re.findall(r"`([a-z_]+(?:\.[a-zN_]+)*)`", page))
    for name in NAMES:
        for key in flat(load_tree(find_profile(name))):
            assert key in described or key.startswith(("simulator.", "dmesg.")), (name, key)


def flat(profile: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys; a number as a key stands for any."""
    found = []
    for key, value in profile.items():
        name = prefix + ("N" if isinstance(key, int) else str(key))
        found += flat(value, f"{name}.") if isinstance(value, dict) else [name]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_says_where_its_values_come_from(name: str) -> None:
    head = "".join(line for line in find_profile(name).read_text().splitlines() if line.startswith("#"))
    assert len(head) > 60
    assert re.search(r"issue|airockchip|sources|documents|report|GatekeeperZA|Pelochus|chosen|rkllama|Frigate", head)


@pytest.mark.parametrize("name", NAMES)
def test_the_simulators_reader_sees_mappings_of_scalars_only(name: str) -> None:
    for line in find_profile(name).read_text().splitlines():
        assert line.startswith("#") or re.match(r" *[\w.]+:( |$)", line), line


@pytest.mark.parametrize("name", NAMES)
def test_a_tree_shows_the_board_that_is_described(name: str, tmp_path: Path) -> None:
    described = read_profile(find_profile(name))
    found = readings(tree(tmp_path, name))
    shown = found.board()
    assert abs((shown.memory.total or 0) - (described.memory.total or 0)) <= PAGE
    assert abs((shown.memory.available or 0) - (described.memory.available or 0)) <= PAGE
    assert abs((shown.memory.swap_free or 0) - (described.memory.swap_free or 0)) <= PAGE
    assert (shown.memory.cma, shown.limits) == (described.memory.cma, described.limits)
    npu = described.npu
    assert (shown.npu.driver, shown.npu.node) == (npu.driver, npu.node)
    assert shown.npu.alignment == npu.alignment
    if npu.driver:
        assert (shown.npu.access, shown.npu.iommu) == (npu.access, npu.iommu)
    assert bool(shown.npu.users) == bool(npu.holds)
    assert (shown.npu.holds, shown.npu.fds) == (npu.holds, npu.fds)
    assert shown.clocks == described.clocks
    if found.soc.container:
        assert shown.soc is None and shown.npu.platform == npu.platform == "unknown"
    else:
        assert (shown.title, shown.soc, shown.npu.platform) == (described.title, described.soc, npu.platform)
        assert found.unreadable == ()
