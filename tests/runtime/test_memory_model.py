"""The memory model against what boards printed: exact buffer sizes, what fits one IOMMU domain, what an old driver
refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.fit import shapes
from rk_gemma_runtime.board import Board, Hold, Memory, Npu
from rk_gemma_runtime.board.facts import GIB
from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.memory import fit
from rk_gemma_runtime.memory.cures import cures
from rk_gemma_runtime.memory.domains import PAGE, Domain
from rk_gemma_runtime.memory.dtypes import dtype_of, fitting
from rk_gemma_runtime.memory.models import NAMES, by_name, find_shape
from rk_gemma_runtime.memory.need import need_of
from rk_gemma_runtime.memory.plan import FITS, NO, TIGHT, make_plan
from rk_gemma_runtime.memory.request import Request
from rk_gemma_runtime.memory.shape import from_config

W8A8 = dtype_of("w8a8")
VISION = 1427746880  # of a vision model that no longer fitted beside a language model
PARAMETERS = {
    "gemma-2b": 2506172416, "gemma-7b": 8537680896, "gemma-1.1-2b": 2506172416, "gemma-1.1-7b": 8537680896,
    "gemma-2-2b": 2614341888, "gemma-2-9b": 9241705984, "gemma-2-27b": 27227128320,
}  # fmt: skip


def board(driver: str = "0.9.8", ram: float = 16, **npu: object) -> Board:
    size = int(ram * GIB)
    described = Npu(driver, "RK3588", "/dev/dri/renderD129", True, True, **npu)  # type: ignore[arg-type]
    return Board(npu=described, memory=Memory(size, size, 0, 0))


@pytest.mark.parametrize("name", NAMES)
def test_every_gemma_has_the_parameters_of_its_card(name: str) -> None:
    assert find_shape(name).parameters == PARAMETERS[name]


@pytest.mark.parametrize("written", ["google/gemma-2-2b-it", "gemma2-2b", "Gemma 2 2B", "gemma_2_2b", "gemma-2-2b"])
def test_a_name_may_be_written_as_people_write_it(written: str) -> None:
    assert by_name(written) == find_shape("gemma-2-2b")


@pytest.mark.parametrize(
    ("model", "dtype", "size"),
    [
        ("qwen3-4b", "w8a8", 4022272000),
        ("qwen2.5-3b", "w8a8", 3085697024),
        ("llama3.2-3b", "w8a8_g128", 3212574720),
        ("chatglm3-6b", "w8a8", 4022861824),
        ("qwen2-7b", "w8a8", 4059037696),
    ],
)
def test_the_first_buffer_has_the_size_that_boards_printed(model: str, dtype: str, size: int) -> None:
    shape = shapes()[model]
    assert need_of(shape, dtype_of(dtype), 4096).buffers[0].bytes == size


def test_the_scales_of_a_grouped_9b_have_the_size_that_a_board_refused() -> None:
    sizes = {
        b.bytes for b in need_of(find_shape("gemma-2-9b"), dtype_of("w8a8_g128"), 4096).buffers if b.what == "scales"
    }
    assert 232128512 in sizes


@pytest.mark.parametrize(("model", "copies"), [("qwen3-4b", 1), ("qwen3-1.7b", 2), ("qwen3-0.6b", 6)])
def test_as_many_copies_fit_one_domain_as_on_the_board(model: str, copies: int) -> None:
    need = need_of(shapes()[model], W8A8, 4096)
    space = fit.Space(board(ram=64), size_aligned=False)
    outcomes = [fit.load(need, board(ram=64), 0, space) for _ in range(copies + 1)]
    assert outcomes[:-1] == [None] * copies
    last = outcomes[-1]
    assert last is not None and (last.cause, last.errno) == ("npu_malloc_iova_exhausted", fit.EFAULT)


def test_a_vision_model_does_not_fit_beside_a_3b_model_and_a_domain_of_its_own_cures_it() -> None:
    held = board(holds=(Hold(0, (VISION,), "a vision model"),))
    plan = make_plan(Request(shapes()["qwen2.5-3b"]), held)
    assert (plan.verdict, plan.reasons[0].cause) == (NO, "npu_malloc_iova_exhausted")
    assert "a vision model" in plan.reasons[0].text
    assert plan.other_domain == 1
    assert make_plan(Request(shapes()["qwen2.5-3b"], base_domain=1), held).verdict == FITS
    assert "--npu-domain 1" in cures(plan)


@pytest.mark.parametrize(("driver", "verdict"), [("0.9.8", FITS), ("0.9.7", TIGHT), ("0.9.6", NO), ("0.9.2", NO)])
def test_a_buffer_above_two_gib_needs_a_driver_that_aligns_by_pages(driver: str, verdict: str) -> None:
    plan = make_plan(Request(find_shape("gemma-2-9b")), board(driver))
    assert plan.verdict == verdict
    assert verdict == FITS or plan.reasons[0].cause == "driver_too_old"
    assert verdict != NO or "a kernel with rknpu driver 0.9.8" in cures(plan)


def test_a_measured_alignment_overrides_the_driver_s_version() -> None:
    assert make_plan(Request(find_shape("gemma-2-2b")), board("0.9.6", iova_alignment="page")).verdict == FITS
    assert make_plan(Request(find_shape("gemma-2-2b")), board("0.9.8", iova_alignment="size")).verdict == NO


def test_size_alignment_leaves_room_for_one_buffer_of_one_to_two_gib() -> None:
    domain = Domain(size_aligned=True)
    assert domain.allocate(2 * GIB + PAGE, "") is None
    first = domain.allocate(GIB + PAGE, "")
    assert first is not None and first.start == 2 * GIB
    assert domain.allocate(GIB + PAGE, "") is None
    assert domain.allocate(GIB, "") is not None


def test_page_alignment_fills_a_domain_but_for_its_first_page() -> None:
    domain = Domain(size_aligned=False)
    assert domain.allocate(4 * GIB, "") is None
    span = domain.allocate(4 * GIB - PAGE, "")
    assert span is not None and span.start == PAGE
    assert domain.allocate(1, "") is None


def test_the_largest_context_is_the_largest() -> None:
    request, small = Request(find_shape("gemma-2-2b"), context=4096), board(ram=3.2)
    most = make_plan(request, small).largest_context
    assert 0 < most < 8192 and most % 32 == 0
    assert make_plan(replace(request, context=most), small).verdict != NO
    assert make_plan(replace(request, context=most + 32), small).verdict == NO


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"driver": ""}, "driver_missing"),
        ({"node": ""}, "driver_missing"),
        ({"access": False}, "permission"),
        ({"driver": "0.8.2"}, "driver_too_old"),
        ({"platform": "RK3576"}, "platform_mismatch"),
        ({"iommu": False}, "iommu_disabled"),
        ({"multi_domain": False, "holds": (Hold(0, (4 * GIB - PAGE,)),)}, "npu_malloc_iova_exhausted"),
    ],
)
def test_each_lack_of_a_board_has_its_cause(change: dict[str, object], cause: str) -> None:
    healthy = board()
    lacking = replace(healthy, npu=replace(healthy.npu, **change))  # type: ignore[arg-type]
    plan = make_plan(Request(find_shape("gemma-2b")), lacking)
    assert (plan.verdict, plan.reasons[0].cause) == (NO, cause)
    assert make_plan(Request(find_shape("gemma-2b")), healthy).verdict == FITS


def test_too_little_ram_is_told_from_too_little_for_everything_else() -> None:
    request = Request(find_shape("gemma-2-2b"))
    need = need_of(request.shape, request.dtype, request.context)
    causes = {ram: make_plan(request, board(ram=ram / GIB)).reasons for ram in (need.npu - PAGE, need.total - PAGE)}
    assert [reasons[0].cause for reasons in causes.values()] == ["npu_malloc_no_ram", "oom_killed"]


def test_swap_that_could_make_room_is_a_doubt_and_counts_for_the_context() -> None:
    request = Request(find_shape("gemma-2-2b"))
    need = need_of(request.shape, request.dtype, request.context)
    short = Memory(8 * GIB, need.npu - PAGE, 2 * GIB, 0)
    plan = make_plan(request, replace(board(), memory=short))
    assert (plan.verdict, plan.reasons[0].cause) == (TIGHT, "npu_malloc_no_ram")
    assert plan.largest_context >= request.context
    assert make_plan(request, replace(board(), memory=replace(short, swap_free=0))).verdict == NO


def test_what_is_not_known_is_a_doubt_and_no_refusal() -> None:
    plan = make_plan(Request(find_shape("gemma-2-2b")), Board())
    assert plan.verdict == TIGHT
    assert not any(reason.blocks for reason in plan.reasons)


@pytest.mark.parametrize("group", ["w8a8_g128", "w8a8_g256", "w8a8_g512"])
def test_a_group_must_divide_the_inputs_of_every_layer(group: str) -> None:
    odd = replace(find_shape("gemma-2-2b"), ffn=9216 + 64)
    assert fitting(odd) == ["w8a8"]
    with pytest.raises(UsageError, match=r"inputs of (down|q) do not divide into groups of \d+; choose w8a8$"):
        need_of(odd, dtype_of(group), 4096)


@pytest.mark.parametrize("key", ["kv_lora_rank", "num_experts", "attention_hidden_size"])
def test_a_model_of_another_kind_is_not_planned(key: str) -> None:
    with pytest.raises(UsageError, match=key):
        from_config({"hidden_size": 64, key: 8}, "other")
