"""Plan and simulator, one in Python and one in C++, on the same boards and models: neither contradicts the other."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simask import SimAsk
from sparsesim import sparse_model

from rk_gemma_runtime.board import find_profile, profile_names, read_profile
from rk_gemma_runtime.board.profile import load_tree
from rk_gemma_runtime.doctor.readings import read_readings
from rk_gemma_runtime.doctor.root import Root
from rk_gemma_runtime.doctor.tree import write_tree
from rk_gemma_runtime.memory.dtypes import dtype_of, fitting
from rk_gemma_runtime.memory.models import SIZES, find_shape
from rk_gemma_runtime.memory.need import SCRATCH_BYTES, need_of
from rk_gemma_runtime.memory.plan import FITS, NO, make_plan
from rk_gemma_runtime.memory.request import Request
from rk_gemma_runtime.memory.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.board, pytest.mark.slow]
ERRNO: dict[str, set[int | str]] = {
    "npu_malloc_iova_exhausted": {14, 22}, "npu_malloc_no_ram": {12}, "iommu_disabled": {22}, "driver_too_old": {14},
    "oom_killed": {""}, "driver_missing": {""}, "permission": {""},
}  # fmt: skip
DRIVERS = ("0.9.8", "0.9.8", "0.9.7", "0.9.6", "0.9.2", "0.8.2", "none")
COMMON = dict(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def sim(simulator: Callable[[str], Path]) -> Iterator[SimAsk]:
    with SimAsk(simulator("1.3.0")) as asker:
        yield asker


def write(path: Path, shape: Shape, dtype: str) -> Path:
    family = "gemma2" if shape.norms == 4 else "gemma"
    return sparse_model(
        path, layers=shape.layers, hidden=shape.hidden, ffn=shape.ffn, heads=shape.heads, kv_heads=shape.kv_heads,
        head_dim=shape.head_dim, vocab=shape.vocab, dtype=dtype, context=8192, family=family,
    )  # fmt: skip


@st.composite
def models(draw: st.DrawFn) -> Shape:
    """Gemma's own, and others of every size up to about 30 GB."""
    if draw(st.booleans()):
        return find_shape(draw(st.sampled_from(SIZES)))
    head_dim = draw(st.sampled_from((64, 128, 256)))
    kv_heads = draw(st.sampled_from((1, 2, 4, 8)))
    heads = kv_heads * draw(st.sampled_from((1, 2, 4)))
    hidden = 512 * draw(st.integers(1, 9))
    ffn, layers = 512 * draw(st.integers(2, 60)), draw(st.integers(1, 48))
    vocab = 1000 * draw(st.integers(1, 256))
    return Shape("gemma2", "random", vocab, hidden, layers, heads, kv_heads, head_dim, ffn, 8192, 4)


@st.composite
def boards(draw: st.DrawFn, near: int) -> str:
    """A profile's text: drivers, alignments, other tenants, and memory around what the model needs."""
    npu: dict[str, object] = {"driver": draw(st.sampled_from(DRIVERS)), "multi_domain": draw(st.integers(0, 9)) > 0}
    if draw(st.integers(0, 3)) == 0:
        npu["iova_alignment"] = draw(st.sampled_from(("size", "page")))
    if draw(st.integers(0, 19)) == 0:
        npu[draw(st.sampled_from(("iommu", "access")))] = False
    sizes = st.lists(st.integers(1, 4 << 30), min_size=1, max_size=3).map(lambda s: " ".join(map(str, s)))
    if draw(st.booleans()):
        npu["occupied"] = draw(st.dictionaries(st.integers(0, 15), sizes, min_size=1, max_size=4))
    around = draw(st.one_of(st.sampled_from((8, 16, 32, 64)), st.floats(0.5, 1.5).map(lambda f: f * near / 2**30)))
    memory: dict[str, object] = {"ram_gb": 64, "available_gb": round(float(around), 3)}
    if draw(st.integers(0, 4)) == 0:
        memory |= {"swap_free_gb": 0.5, "cma_mb": draw(st.sampled_from((16, 256, 4096)))}
    return yaml.safe_dump({"name": "drawn", "npu": npu, "memory": memory}, sort_keys=False)


def test_no_plan_is_contradicted(sim: SimAsk, tmp_path_factory: pytest.TempPathFactory) -> None:
    verdicts: Counter[str] = Counter()

    @settings(max_examples=400, **COMMON)
    @given(data=st.data())
    def agree(data: st.DataObject) -> None:
        verdicts[judged(data, sim, tmp_path_factory)] += 1

    agree()
    # A plan that always shrugs would never be contradicted.
    assert verdicts["tight"] <= 0.25 * verdicts.total(), verdicts
    assert min(verdicts[FITS], verdicts[NO]) >= 0.1 * verdicts.total(), verdicts


def judged(data: st.DataObject, sim: SimAsk, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Draw a model and a board, and hold plan and simulator together; the plan's verdict."""
    shape = data.draw(models())
    dtype = data.draw(st.sampled_from(fitting(shape)))
    context, domain = 32 * data.draw(st.integers(1, 256)), data.draw(st.sampled_from((0, 0, 0, 1, 2, 9, 14, 15)))
    flash = data.draw(st.integers(0, 3)) > 0
    text = data.draw(boards(need_of(shape, dtype_of(dtype), context, flash).total))
    folder = tmp_path_factory.mktemp("drawn")
    profile, model = folder / "drawn.yaml", write(folder / "model.sim", shape, dtype)
    profile.write_text(text)
    plan = make_plan(Request(shape, dtype_of(dtype), context, domain, flash, limit=8192), read_profile(profile))
    answer = sim.ask(text, model, context, domain, flash)
    model.unlink()
    told = f"{plan.verdict} {plan.reasons} {answer}\n{text}"
    if plan.verdict == FITS:
        assert answer.loads, told
    if plan.verdict == NO and plan.reasons[0].text.startswith("driver 0.8."):
        return NO  # it loads there, and every matmul fails
    if plan.verdict == NO:
        assert not answer.loads, told
        cause = plan.reasons[0].cause
        if plan.board.npu.alignment is None:
            return NO  # it fails either way, and at which buffer is not known
        assert answer.killed == (cause == "oom_killed"), told
        assert answer.errno in ERRNO[cause], told
    return plan.verdict


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("size", SIZES)
def test_every_profile_is_planned_as_it_behaves(
    name: str, size: str, simulator: Callable[[str], Path], tmp_path: Path
) -> None:
    path, shape = find_profile(name), find_shape(size)
    board = read_profile(path)
    plan = make_plan(Request(shape, limit=8192), board)
    with SimAsk(simulator("1.3.0"), board.limits.nofile_hard) as sim:
        answer = sim.ask(path.read_text(), write(tmp_path / "model.sim", shape, "w8a8"), 4096)
    write_tree(load_tree(path), tmp_path / "tree")
    seen = make_plan(Request(shape, limit=8192), read_readings(Root(tmp_path / "tree")).board())
    for who, told in (("profile", plan), ("doctor", seen)):
        broken_later = any("fails at every matmul" in reason.text for reason in told.reasons)
        if told.verdict != "tight" and not broken_later:
            assert answer.loads == (told.verdict == FITS), (who, told.verdict, told.reasons, answer)


def test_the_model_of_this_test_is_the_one_that_is_planned(sim: SimAsk, tmp_path: Path) -> None:
    shape = find_shape("gemma-2-9b")
    answer = sim.ask("npu:\n  driver: 0.9.6\n", write(tmp_path / "m.sim", shape, "w8a8"), 4096)
    assert (answer.errno, answer.size) == (14, need_of(shape, dtype_of("w8a8"), 4096).largest)
    assert SCRATCH_BYTES < answer.size
