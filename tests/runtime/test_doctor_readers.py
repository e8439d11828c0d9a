"""The readers on files that lie: a value or "could not read", never a guess, never an exception, never a wait."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from doctorkit import put, readings, tree, whys
from runtimekit import patient

from rk_gemma_runtime.doctor.root import LIMIT, Root

if TYPE_CHECKING:
    from pathlib import Path

MEMINFO = "proc/meminfo"
SNAPS_S = 5.0


def test_a_healthy_tree_is_read_whole(tmp_path: Path) -> None:
    found = readings(tree(tmp_path))
    assert found.unreadable == ()
    assert (found.soc.model, found.soc.chip, found.soc.platform) == ("Orange Pi 5", "rk3588s", "RK3588")
    assert (found.soc.kernel, found.soc.machine) == ("6.1.84-vendor", "aarch64")
    assert [v.text for v in found.npu.versions] == ["0.9.8"] * 3
    assert found.npu.node is not None and found.npu.node.path == "/dev/dri/renderD129"
    assert (found.npu.node.mode, found.npu.node.group, found.npu.node.access) == ("660", "render", True)
    assert found.npu.load == (0, 0, 0)
    assert found.iommu is True
    assert found.cpu.online == tuple(range(8)) and found.cpu.features and "asimddp" in found.cpu.features
    assert [p.name for p in found.cpu.big] == ["policy4", "policy6"]
    assert found.clocks.npu and found.clocks.npu.current == found.clocks.npu.most == 1_000_000_000
    assert {zone.type: zone.temperature for zone in found.clocks.zones} == {
        "soc-thermal": 48000,
        "npu-thermal": 47000,
    }
    assert found.clocks.throttling == ()  # the fan runs, and that is no throttling


def test_nothing_at_all_is_nothing_known(tmp_path: Path) -> None:
    found = readings(tmp_path)
    assert found.driver is None and found.iommu is None and found.npu.node is None and not found.npu.absent
    assert found.memory.total is None and found.limits.soft is None and found.cpu.online is None
    assert whys(found)["/proc/meminfo"] == "not there"
    board = found.board()
    assert (board.soc, board.npu.node, board.npu.driver, board.memory.total) == (None, None, None, None)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("MemTotal:       16G", "MemTotal is '16G', not kB"),
        ("MemTotal:       16777216 MB", "MemTotal is '16777216 MB', not kB"),
        ("MemTotal:       -16777216 kB", "MemTotal is '-16777216 kB', not kB"),
        ("MemTotal:       16777216", "MemTotal is '16777216', not kB"),
        ("MemTotal:       9999999999999999999 kB", "MemTotal is '9999999999999999999 kB', not kB"),
        ("MemTotal:       \u0661\u0662 kB", "MemTotal is '\u0661\u0662 kB', not kB"),
        ("MemTotal:", "MemTotal is empty, not kB"),
        ("MemTotal:       1 kB", "MemAvailable is more than MemTotal"),
        ("", "no MemTotal: cut off?"),
    ],
)
def test_wrong_sizes_are_no_sizes(tmp_path: Path, line: str, why: str) -> None:
    text = (tree(tmp_path) / MEMINFO).read_text().splitlines()
    put(tmp_path, MEMINFO, "\n".join([line, *text[1:]]))
    found = readings(tmp_path)
    assert found.memory.total is None
    assert whys(found)["/proc/meminfo"] == why
    assert found.memory.swap_free == 0


def test_a_file_that_was_cut_off_is_known_as_far_as_it_goes(tmp_path: Path) -> None:
    text = (tree(tmp_path) / MEMINFO).read_text()
    put(tmp_path, MEMINFO, text[: text.index("MemAvailable") + 20])
    found = readings(tmp_path)
    assert found.memory.total == 16 << 30
    assert found.memory.available is None
    assert any("MemAvailable" in u.why for u in found.unreadable)


LIES = {
    "sys/module/rknpu/version": ["0.9", "v0.9.8.1", "rknpu", "", "0.9.x", "-1.0.0"],
    "sys/kernel/debug/rknpu/version": ["0.9.8", "RKNPU driver: v", "GPU driver: v0.9.8"],
    "sys/kernel/debug/rknpu/load": ["Core0:  0%,", "NPU load:  Core0: many", ""],
    "proc/self/limits": ["Max open files", "Max open files  many few files", "Max open files  2048 1024 files", ""],
    "proc/swaps": ["x", "Filename\n/dev/zram0 partition many 0 1\n", ""],
    "proc/device-tree/model": ["Orange Pi 5", "", "a\0b\0", "\0"],
    "proc/device-tree/compatible": ["rockchip,rk3588", "", "\0\0"],
    "proc/cpuinfo": ["processor: 0\n", ""],
    "sys/devices/system/cpu/online": ["0-", "7-0", "a", "-1", "0-99999999", ""],
    "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": ["-1", "1.8 GHz", "2352000 kHz", "<unknown>", ""],
    "sys/devices/system/cpu/cpufreq/policy4/scaling_governor": ["two words", ""],
    "sys/class/devfreq/fdab0000.npu/cur_freq": ["1 GHz", "0x10", ""],
    "sys/class/devfreq/dmc/available_frequencies": ["fast slow", ""],
    "sys/class/thermal/thermal_zone0/temp": ["48.5", "48 C", "4800000", "-99999", ""],
    "sys/class/drm/renderD129/device/uevent": ["", "OF_NAME=npu"],
    "rk-gemma/nodes": ["/dev/dri/renderD129 rw", "/dev/dri/renderD129 0999 root render rw"],
    "rk-gemma/actions": ["GET_DRV_VERSION", "GET_DRV_VERSION -1", "GET_DRV_VERSION \u0661"],
    "rk-gemma/users": ["python3", "unseen many", "12"],
    "rk-gemma/uname": ["6.1", "6.1 aarch64 extra", ""],
    "rk-gemma/container": ["../..", ""],
    "rk-gemma/engine": ["", "[]", "{}", '{"version": 1}', "[" * 5000],
    "rk-gemma/library": ["", "[1]", '{"path": "x"}'],
    "rk-gemma/probe": ["", "null", '{"largest": -1}', '{"domain": "x"}'],
}


@pytest.mark.parametrize(("name", "lie"), [(name, lie) for name, lies in LIES.items() for lie in lies])
def test_a_lie_is_told_and_not_believed(tmp_path: Path, name: str, lie: str) -> None:
    put(tree(tmp_path), name, lie)
    path = name if name.startswith("rk-gemma/") else f"/{name}"
    assert path in whys(readings(tmp_path))


@pytest.mark.parametrize("name", LIES)
def test_binary_is_no_text(tmp_path: Path, name: str) -> None:
    put(tree(tmp_path), name, bytes(range(256)))
    path = name if name.startswith("rk-gemma/") else f"/{name}"
    assert whys(readings(tmp_path))[path] == "not text"


@pytest.mark.parametrize("name", [MEMINFO, "proc/device-tree/model", "rk-gemma/nodes"])
def test_a_directory_is_no_file(tmp_path: Path, name: str) -> None:
    (tree(tmp_path) / name).unlink()
    (tmp_path / name).mkdir()
    assert "a directory" in whys(readings(tmp_path)).values()


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    for name in LIES:
        path = tree(tmp_path) / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        start = time.monotonic()
        assert "not an ordinary file" in whys(readings(tmp_path)).values(), name
        assert time.monotonic() - start < patient(SNAPS_S)
        path.unlink()


def test_what_is_denied_is_said(tmp_path: Path) -> None:
    (tree(tmp_path) / MEMINFO).chmod(0)
    user = os.geteuid()
    if user == 0:  # who may read everything; the tree lies in a directory that is root's own
        try:
            os.seteuid(65534)
        except OSError:
            pytest.skip("root of a user namespace with no other user; run as a user to un-skip")
    try:
        found = readings(tmp_path)
    finally:
        os.seteuid(user)
    assert whys(found)["/proc/meminfo"] == "permission denied"
    assert found.memory.total is None


def test_what_was_denied_on_the_board_is_said(tmp_path: Path) -> None:
    (tree(tmp_path) / MEMINFO).unlink()
    put(tmp_path, "rk-gemma/unreadable", "proc/meminfo\tpermission denied\nbroken line\n")
    assert whys(readings(tmp_path))["/proc/meminfo"] == "permission denied"


def test_a_file_without_end_is_left_alone(tmp_path: Path) -> None:
    with (tree(tmp_path) / MEMINFO).open("wb") as file:
        file.truncate(1 << 40)
    assert whys(readings(tmp_path))["/proc/meminfo"] == f"larger than {LIMIT} bytes"


def test_links_stay_inside(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    outside.mkdir()
    put(outside, "model", "Another board\0")
    link = tree(inside) / "proc/device-tree/model"
    link.unlink()
    link.symlink_to("../../../../../../../../../" + str(outside / "model"))
    assert readings(inside).soc.model is None
    link.unlink()
    link.symlink_to("/sys/firmware/model")  # as the kernel's /proc/device-tree does
    put(inside, "sys/firmware/model", "This board\0")
    assert readings(inside).soc.model == "This board"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    path = tree(tmp_path) / MEMINFO
    path.unlink()
    path.symlink_to("meminfo")
    assert whys(readings(tmp_path))["/proc/meminfo"] == "too many links"


def test_a_driver_is_absent_only_where_sys_can_be_seen(tmp_path: Path) -> None:
    assert readings(tree(tmp_path / "a", "mainline-no-rknpu")).driver == ""
    put(tmp_path / "b", "proc/meminfo", "MemTotal: 1 kB\n")
    assert readings(tmp_path / "b").driver is None


def test_names_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    folder = tree(tmp_path) / "sys/class/drm"
    os.mkdir(os.fsencode(folder) + b"/renderD\xff\n")
    assert Root(tmp_path).names("sys/class/drm") == ["renderD128", "renderD129"]


def test_every_prefix_of_every_file_is_read_without_a_word_too_many(tmp_path: Path) -> None:
    names = [str(p.relative_to(tmp_path)) for p in tree(tmp_path).rglob("*") if p.is_file()]
    whole = readings(tmp_path)
    for name in names:
        data = (tmp_path / name).read_bytes()
        for end in {0, len(data) // 2, len(data) - 1}:
            put(tmp_path, name, data[:end])
            found = readings(tmp_path)
            assert found.memory.total in {None, whole.memory.total}
        put(tmp_path, name, data)


def test_no_bytes_break_a_reader(tmp_path: Path) -> None:
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    names = sorted(str(p.relative_to(tmp_path)) for p in tree(tmp_path).rglob("*") if p.is_file())
    names += ["rk-gemma/library", "rk-gemma/engine", "rk-gemma/probe", "rk-gemma/drm", "rk-gemma/unreadable"]
    texts = st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode),
                      st.sampled_from([b"null", b"[]", b"{}", b"1e999", b"-0", b"\0", b"NaN"]))  # fmt: skip

    @hypothesis.settings(max_examples=150, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(st.dictionaries(st.sampled_from(names), texts, min_size=1, max_size=6))
    def holds(files: dict[str, bytes]) -> None:
        from rk_gemma_runtime.doctor.readings import read_readings

        found = read_readings(Root(tmp_path, files))
        found.board()
        assert all("\n" not in u.path for u in found.unreadable)

    holds()
