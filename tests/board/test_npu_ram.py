"""Whether the described board has the memory: contiguous, pages, the process's own. To the byte, with the kernel's
lines; and that weights are not read for it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from npukit import (
    GIB,
    MIB,
    PAGE,
    PAGE_ALIGNED,
    PROCESS,
    SCRATCH,
    SHAPES,
    SIZE_ALIGNED,
    gib,
    profile,
    refused,
    total,
)  # fmt: skip

if TYPE_CHECKING:
    from npukit import Weights
    from simask import Answer, SimAsk

pytestmark = pytest.mark.board


def test_without_an_iommu_memory_is_contiguous(sim: SimAsk, weights: Weights) -> None:
    model, need = weights(GIB), GIB // MIB + 96
    assert refused(sim.ask(profile(iommu="false"), model, 128), 22, GIB)
    for cma, answer in ((need, 0), (need - 1, SCRATCH), (GIB // MIB, SCRATCH), (GIB // MIB - 1, GIB)):
        asked = sim.ask(profile({"cma_mb": cma}, iommu="false"), model, 128)
        assert refused(asked, 22, answer) if answer else asked.loads
    assert refused(sim.ask(profile({"cma_mb": 8192}, iommu="false"), model, 128, base_domain=1), 22, GIB)
    assert sim.ask(profile({"cma_mb": need}, iommu="false"), model, 128, keep=True).loads
    assert refused(sim.ask(profile({"cma_mb": need}, iommu="false"), model, 128), 22, GIB)
    sim.free()


def test_pages_of_ram(sim: SimAsk, weights: Weights) -> None:
    model, all_buffers = weights(GIB), GIB + SCRATCH
    for available, size in ((GIB - 1, GIB), (GIB, SCRATCH), (all_buffers - 1, SCRATCH)):
        board = profile({"available_gb": gib(available), "swap_free_gb": 8})
        assert refused(sim.ask(board, model, 128), 12, size)
    enough = profile({"available_gb": gib(all_buffers), "swap_free_gb": 8})
    assert sim.ask(enough, model, 128, keep=True).loads
    assert refused(sim.ask(enough, model, 128, base_domain=1), 12, GIB)
    sim.free()
    assert refused(sim.ask(profile({"ram_gb": 1.5}), model, 128), 12, GIB)  # 0.75 GiB are the system's
    assert refused(sim.ask(profile({"ram_gb": 0.5}), model, 128), 12, GIB)


def host(model: dict[str, int], context: int, embed_flash: bool, groups: int) -> int:
    kv = model["layers"] * model["kv_heads"] * model["head_dim"] * 4 * context
    table = 0 if embed_flash else model["vocab"] * model["hidden"] * 4
    return PROCESS + math.ceil(786.432 * model["vocab"]) + kv + table + 8 * groups


@pytest.mark.parametrize(
    ("dtype", "context", "embed_flash", "swap"),
    [("w8a8", 4096, True, 0), ("w8a8", 1, False, 0), ("w8a8_g128", 128, True, 0), ("w8a8", 128, True, 100 * MIB)],
)
def test_host_memory_to_the_byte(
    dtype: str, context: int, embed_flash: bool, swap: int, sim: SimAsk, weights: Weights
) -> None:
    model, weight = weights("qwen3-4b", dtype=dtype), total("qwen3-4b")
    groups = weight // 128 if dtype != "w8a8" else 0
    buffers = weight + 8 * groups + SCRATCH  # each in whole pages already
    need = buffers + host(SHAPES["qwen3-4b"], context, embed_flash, groups)

    def ask(available: int) -> Answer:
        board = profile({"available_gb": gib(available - swap), "swap_free_gb": gib(swap)})
        return sim.ask(board, model, context, embed_flash=embed_flash)

    assert ask(need).loads
    killed = ask(need - 1)
    assert (killed.killed, killed.returned, killed.errno) == (True, None, "")
    assert not [line for line in killed.lines if line.startswith("E ")]
    assert ask(need).loads  # in another process


def test_what_is_not_known_is_not_checked(sim: SimAsk, weights: Weights) -> None:
    assert sim.ask("", weights("gemma-2-9b"), 4096).loads
    assert sim.ask(profile({"ram_gb": "none", "swap_free_gb": 0}), weights("gemma-2-9b"), 4096).loads


def resident_file_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"RssFile:\s+(\d+) kB", status)
    return int(found[1]) if found else 0


def test_weights_are_mapped_and_not_read(sim: SimAsk, weights: Weights) -> None:
    model = weights("gemma-2-9b")
    assert model.stat().st_size > 9 * GIB and model.stat().st_blocks * 512 < MIB
    assert sim.ask(profile(), weights(GIB), 128).loads
    child = sim._child
    assert child is not None
    before = resident_file_kb(child.pid)
    assert sim.ask(profile(), model, 4096, keep=True).loads
    assert resident_file_kb(child.pid) - before < 2048
    sim.free()


def test_a_process_answers_many_questions(sim: SimAsk, weights: Weights) -> None:
    """The profile is read at every init."""
    sim.ask(profile(), weights(GIB), 128)
    before = sim.started
    boards = {profile(driver=SIZE_ALIGNED): False, profile(driver=PAGE_ALIGNED): True, profile(node="none"): False}
    for _ in range(40):
        for board, loads in boards.items():
            assert sim.ask(board, weights(2 * GIB + PAGE), 128).loads is loads
    assert sim.started == before


LOGGED = {
    "iova": (profile(driver=PAGE_ALIGNED, iova_alignment="size"), 0, [
        "RKNPU: failed to allocate IOVA: -12",
        "RKNPU fdab0000.npu: RKNPU: rknpu_gem_get_pages: dma map 3221225472 fail"]),
    "iova, old driver": (profile(driver=SIZE_ALIGNED), 0, [
        "RKNPU fdab0000.npu: RKNPU: rknpu_gem_get_pages: dma map 3221225472 fail"]),
    "pages": (profile({"available_gb": 1}), 0, ["RKNPU: failed to get pages: -12"]),
    "contiguous": (profile(iommu="false"), 0, [
        "cma: cma_alloc: reserved: alloc failed, req-size: 786432 pages, ret: -12",
        "RKNPU fdab0000.npu: RKNPU: failed to allocate 3221225472 buffer."]),
    "domain": (profile(), 16, [
        "RKNPU fdab0000.npu: RKNPU: invalid iommu domain id: 16, reuse domain id: 0",
        "RKNPU fdab0000.npu: RKNPU: failed to switch iommu domain, id: 16, ret: -22"]),
    "nothing": (profile(), 0, []),
}  # fmt: skip


@pytest.mark.parametrize("case", LOGGED)
def test_the_kernel_says_why(case: str, sim: SimAsk, weights: Weights, kmsg: Path) -> None:
    board, domain, expected = LOGGED[case]
    kmsg.write_text("")
    sim.ask(board, weights(3 * GIB), 128, base_domain=domain)
    lines = kmsg.read_text().splitlines()
    assert all(re.match(r"\[ *\d+\.\d{6}\] ", line) for line in lines)
    assert [line.partition("] ")[2] for line in lines] == expected


def test_the_kernel_says_whom_it_killed(sim: SimAsk, weights: Weights, kmsg: Path) -> None:
    kmsg.write_text("")
    assert sim.ask(profile({"available_gb": 4}), weights(3 * GIB), 128).killed
    short, long = kmsg.read_text().splitlines()
    pid = re.search(r"Killed process (\d+) \(", long)
    assert pid and "Out of memory: " in long
    assert "oom-kill:" in short and f"pid={pid[1]},uid=" in short
