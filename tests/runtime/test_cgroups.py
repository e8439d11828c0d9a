"""Limits of control groups count: both versions, nested, for doctor, plan and load."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest
from doctorkit import put, readings, tree

from rk_gemma.planning.sources import board_of
from rk_gemma_runtime.board import live
from rk_gemma_runtime.board.cgroup import levels, limited
from rk_gemma_runtime.board.facts import GIB, Memory
from rk_gemma_runtime.doctor import capture
from rk_gemma_runtime.doctor.readings import read_readings
from rk_gemma_runtime.doctor.report import examine
from rk_gemma_runtime.doctor.root import Root
from rk_gemma_runtime.doctor.short import cpu_is_short
from rk_gemma_runtime.memory.cures import cures
from rk_gemma_runtime.memory.models import find_shape
from rk_gemma_runtime.memory.plan import NO, make_plan
from rk_gemma_runtime.memory.request import Request

if TYPE_CHECKING:
    from pathlib import Path

UNLIMITED_V1 = "9223372036854771712"
FS = "sys/fs/cgroup"
SLICE = "system.slice/gemma.service"
# Files of a board with 16 GiB of which 14.9 are available; what must be left, in MiB (None: no limit).
CASES: dict[str, tuple[dict[str, str], int | None]] = {
    "v2, in a container": ({"proc/self/cgroup": "0::/", f"{FS}/memory.max": str(2 * GIB)}, 2048),
    "v2, no list of groups": ({f"{FS}/memory.max": str(2 * GIB)}, 2048),
    "v2, a service": ({"proc/self/cgroup": f"0::/{SLICE}", f"{FS}/{SLICE}/memory.max": str(GIB)}, 1024),
    "v2, its slice": (
        {"proc/self/cgroup": f"0::/{SLICE}", f"{FS}/{SLICE}/memory.max": "max",
         f"{FS}/system.slice/memory.max": str(3 * GIB)}, 3072),
    "v2, both, the outer is lower": (
        {"proc/self/cgroup": f"0::/{SLICE}", f"{FS}/{SLICE}/memory.max": str(4 * GIB),
         f"{FS}/system.slice/memory.max": str(GIB)}, 1024),
    "v2, used": (
        {"proc/self/cgroup": "0::/", f"{FS}/memory.max": str(2 * GIB), f"{FS}/memory.current": str(GIB)}, 1024),
    "v2, used by files": (
        {"proc/self/cgroup": "0::/", f"{FS}/memory.max": str(2 * GIB), f"{FS}/memory.current": str(GIB),
         f"{FS}/memory.stat": f"anon 5\ninactive_file {GIB // 2}\nactive_file {GIB // 4}\n"}, 1792),
    "v2, over its limit": (
        {"proc/self/cgroup": "0::/", f"{FS}/memory.max": str(GIB), f"{FS}/memory.current": str(2 * GIB)}, 0),
    "v2, slowed above high": (
        {"proc/self/cgroup": "0::/", f"{FS}/memory.max": "max", f"{FS}/memory.high": str(2 * GIB)}, 2048),
    "v2, none": ({"proc/self/cgroup": "0::/", f"{FS}/memory.max": "max"}, None),
    "v2, more than there is": ({"proc/self/cgroup": "0::/", f"{FS}/memory.max": str(64 * GIB)}, None),
    "v2, damaged": ({"proc/self/cgroup": "nonsense", f"{FS}/memory.max": "-1 GB"}, None),
    "v2, outside": ({"proc/self/cgroup": "0::/../../x", f"{FS}/memory.max": str(2 * GIB)}, 2048),
    "v1": ({"proc/self/cgroup": "4:memory:/docker/abc\n3:cpu:/",
            f"{FS}/memory/docker/abc/memory.limit_in_bytes": str(2 * GIB)}, 2048),
    "v1, in a container": ({"proc/self/cgroup": "4:cpu,memory:/docker/abc",
                            f"{FS}/memory/memory.limit_in_bytes": str(2 * GIB)}, 2048),
    "v1, nested": (
        {"proc/self/cgroup": "4:memory:/a/b", f"{FS}/memory/memory.limit_in_bytes": UNLIMITED_V1,
         f"{FS}/memory/a/memory.limit_in_bytes": str(GIB), f"{FS}/memory/a/b/memory.limit_in_bytes": str(2 * GIB)},
        1024),
    "v1, used": (
        {"proc/self/cgroup": "4:memory:/a", f"{FS}/memory/a/memory.limit_in_bytes": str(2 * GIB),
         f"{FS}/memory/a/memory.usage_in_bytes": str(GIB),
         f"{FS}/memory/a/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 2}\n"}, 1536),
    "v1, none": ({"proc/self/cgroup": "4:memory:/", f"{FS}/memory/memory.limit_in_bytes": UNLIMITED_V1}, None),
    "both": ({"proc/self/cgroup": "4:memory:/a\n0::/b", f"{FS}/memory/a/memory.limit_in_bytes": str(3 * GIB),
              f"{FS}/unified/b/memory.max": str(2 * GIB)}, 2048),
}  # fmt: skip


def planted(folder: Path, case: str) -> Path:
    for name, text in CASES[case][0].items():
        put(folder, name, f"{text}\n")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_a_limit_counts_for_doctor_and_plan(case: str, tmp_path: Path) -> None:
    expected = CASES[case][1]
    free = examine(readings(tree(tmp_path / "free")))
    found = examine(readings(planted(tree(tmp_path / "board"), case)))
    planned = board_of("", str(tmp_path / "board"), None, "")
    assert planned.memory == found.board.memory
    plan = make_plan(Request(find_shape("gemma-2-2b")), planned)
    if expected is None:
        assert found.board.memory.available == free.board.memory.available and found.exit == 0
        return
    assert (found.board.memory.available or 0) >> 20 == expected
    assert (found.exit == 0) == (expected > 2825), list(found.lines())
    assert (plan.verdict == NO) == (expected < 3072 + 200)
    if plan.verdict == NO:
        assert "a control group allows" in plan.reasons[0].text
        assert any("MemoryMax=" in cure for cure in cures(plan))
    (memory,) = (f for f in found.findings if f.id == "memory")
    assert any(line.startswith("control group, memory.") for line in memory.evidence)


@pytest.mark.parametrize("case", CASES)
def test_a_limit_counts_for_a_load(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, expected = planted(tree(tmp_path), case), CASES[case][1]

    def read(path: Path) -> str:
        try:
            return (folder / path.relative_to("/")).read_text()
        except OSError:
            return ""

    monkeypatch.delenv(live.DESCRIBED, raising=False)
    monkeypatch.setattr(live, "_text", read)
    memory = live.this_board().memory
    assert memory == live.own_memory()
    assert (memory.available or 0) >> 20 == (15257 if expected is None else expected)


@pytest.mark.parametrize("case", ["v2, a service", "v1, nested", "v2, used"])
def test_a_capture_has_the_numbers_and_not_the_names(case: str, tmp_path: Path) -> None:
    root = Root(planted(tree(tmp_path / "board"), case))
    first = read_readings(root).board()
    capture.write(root, tmp_path / "board.tar")
    with tarfile.open(tmp_path / "board.tar") as tar:
        assert "rk-gemma/cgroup" in tar.getnames()
        assert not any("fs/cgroup" in name or name == "proc/self/cgroup" for name in tar.getnames())
    (tmp_path / "again").mkdir()
    capture.unpack(tmp_path / "board.tar", tmp_path / "again")
    assert read_readings(Root(tmp_path / "again")).board().memory == first.memory


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({f"{FS}/memory.max": str(GIB), f"{FS}/memory.swap.max": "0"}, 0),
        ({f"{FS}/memory.max": str(GIB), f"{FS}/memory.swap.max": "max"}, GIB),
        ({f"{FS}/memory.max": str(GIB), f"{FS}/memory.swap.max": "4096", f"{FS}/memory.swap.current": "96"}, 4000),
        ({f"{FS}/memory/memory.limit_in_bytes": str(GIB), f"{FS}/memory/memory.memsw.limit_in_bytes": str(GIB)}, 0),
    ],
)
def test_swap_has_limits_of_its_own(files: dict[str, str], free: int) -> None:
    memory = limited(Memory(8 * GIB, 7 * GIB, GIB), levels(files.get))
    assert (memory.swap_free, memory.limit) == (free, GIB)


def test_a_cpu_load_that_will_crawl_is_said_before_it(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rk_gemma_runtime.bundle import Bundle

    bundle = Bundle.open(demo_bundle)
    monkeypatch.setattr(live, "own_memory", lambda: Memory(16 * GIB, 90 << 20, 0, None, 128 << 20))
    assert "90 MiB are available (a control group allows 128 MiB in all)" in cpu_is_short(bundle)
    monkeypatch.setattr(live, "own_memory", lambda: Memory(16 * GIB, 8 * GIB, 0))
    assert cpu_is_short(bundle) == ""
