"""Whether a model's buffers find I/O addresses on the described board. Files of any size without weights; every
border to the byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from npukit import GIB, MIB, PAGE, PAGE_ALIGNED, SCRATCH, SIZE_ALIGNED, profile, refused, total

if TYPE_CHECKING:
    from npukit import Weights
    from simask import SimAsk

pytestmark = pytest.mark.board


@pytest.mark.parametrize(
    ("name", "size"), [("qwen3-4b", 4022272000), ("chatglm3-6b", 4022861824), ("qwen2-7b", 4059037696)]
)
def test_sizes_of_public_reports(name: str, size: int, sim: SimAsk, weights: Weights) -> None:
    assert refused(sim.ask(profile(driver=SIZE_ALIGNED), weights(name), 128), 14, size)
    assert sim.ask(profile(driver=PAGE_ALIGNED), weights(name), 128).loads


def test_grouped_weights_have_a_second_buffer(sim: SimAsk, weights: Weights) -> None:
    """232128512 is what public reports of gemma-2-9b in w8a8_g128 show: the scales of its first 3714056192 bytes."""
    model = weights("gemma-2-9b", dtype="w8a8_g128")
    board = profile(occupied={0: "400000000"})
    assert refused(sim.ask(board, model, 128), 14, 232128512)
    assert refused(sim.ask(profile(occupied={0: "600000000"}), model, 128), 14, 3714056192)
    assert sim.ask(profile(), model, 128).loads


def test_two_and_four_bytes_a_weight(sim: SimAsk, weights: Weights) -> None:
    for dtype, factor in (("fp16", 2), ("f32", 4)):
        model = weights(512 * MIB, dtype=dtype)
        assert refused(sim.ask(profile(iommu="false"), model, 128), 22, 512 * MIB * factor)


@pytest.mark.parametrize("size", [2 * GIB, 2 * GIB + PAGE])
def test_the_border_of_2_gib(size: int, sim: SimAsk, weights: Weights) -> None:
    model = weights(size)
    assert sim.ask(profile(driver=PAGE_ALIGNED), model, 128).loads
    assert sim.ask(profile(driver=SIZE_ALIGNED, iova_alignment="page"), model, 128).loads
    for board in (profile(driver=SIZE_ALIGNED), profile(driver=PAGE_ALIGNED, iova_alignment="size")):
        answer = sim.ask(board, model, 128)
        assert answer.loads if size == 2 * GIB else refused(answer, 14, size)


def test_above_1_gib_once_per_domain_with_size_alignment(sim: SimAsk, weights: Weights) -> None:
    small, large, board = weights(GIB), weights(GIB + PAGE), profile(driver=SIZE_ALIGNED)
    assert sim.ask(board, large, 128, keep=True).loads
    assert refused(sim.ask(board, large, 128), 14, GIB + PAGE)
    assert sim.ask(board, large, 128, base_domain=1).loads
    assert sim.ask(board, small, 128).loads  # [1 GiB, 2 GiB) is free
    sim.free()
    assert sim.ask(board, large, 128).loads


def test_pages_are_packed_closely(sim: SimAsk, weights: Weights) -> None:
    """Page 0 is never used, so that one byte less than the domain is too much."""
    left = 4 * GIB - PAGE - GIB - SCRATCH
    for size, loads in ((left, True), (left + 1, False)):
        assert sim.ask(profile(occupied={0: str(size)}), weights(GIB), 128).loads is loads
    assert refused(sim.ask(profile(occupied={0: str(left + 1)}), weights(GIB), 128), 14, SCRATCH)
    assert refused(sim.ask(profile(occupied={0: str(4 * GIB - PAGE)}), weights(GIB), 128), 14, GIB)


def test_handles_of_one_process_add_up(sim: SimAsk, weights: Weights) -> None:
    model = weights(GIB)
    for _ in range(3):
        assert sim.ask(profile(), model, 128, keep=True).loads
    assert refused(sim.ask(profile(), model, 128), 14, GIB)
    assert sim.ask(profile(), model, 128, base_domain=1, keep=True).loads
    sim.free()
    for _ in range(20):
        assert sim.ask(profile(), model, 128).loads


def test_occupied_domains(sim: SimAsk, weights: Weights) -> None:
    """Others' buffers are placed as one's own are; one that finds no place does not matter."""
    board = profile(occupied={0: "1427746880 3085697024", 1: "3085697024", 10: "2 4096"})
    model = weights(2 * GIB)
    assert sim.ask(board, model, 128).loads  # the second of domain 0 was passed over
    assert refused(sim.ask(board, model, 128, base_domain=1), 14, 2 * GIB)
    assert sim.ask(board, model, 128, base_domain=10).loads
    aligned = profile(occupied={0: "1"}, driver=SIZE_ALIGNED)  # the highest page
    assert refused(sim.ask(aligned, model, 128), 14, 2 * GIB)


def test_large_models_spill_into_the_next_domain(sim: SimAsk, weights: Weights) -> None:
    model, second = weights("qwen2-7b"), total("qwen2-7b") - 4059037696
    for domain, loads in ((0, True), (14, True), (15, False)):
        assert sim.ask(profile(), model, 128, base_domain=domain).loads is loads
    assert refused(sim.ask(profile(), model, 128, base_domain=15), 22, second)
    assert refused(sim.ask(profile(), model, 128, base_domain=16), 22, 4059037696)
    assert refused(sim.ask(profile(occupied={5: "2000000000"}), model, 128, base_domain=4), 14, second)


def test_a_kernel_without_domains(sim: SimAsk, weights: Weights) -> None:
    board, model = profile(multi_domain="false"), weights("qwen2-7b")
    assert refused(sim.ask(board, model, 128), 14, total("qwen2-7b") - 4059037696)
    assert sim.ask(board, weights(2 * GIB), 128, base_domain=3, keep=True).loads
    assert refused(sim.ask(board, weights(2 * GIB), 128, base_domain=7), 14, 2 * GIB)
    sim.free()
    assert refused(sim.ask(board, weights(GIB), 128, base_domain=16), 22, GIB)
    elsewhere = profile(multi_domain="false", occupied={9: "3221225472"})
    assert refused(sim.ask(elsewhere, weights(GIB), 128), 14, GIB)
