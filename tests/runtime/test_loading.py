"""The order of a load: plan, try, one change at a time; what is told when nothing helps. No process is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from rk_gemma_runtime.board import Board, Hold, Memory, Npu
from rk_gemma_runtime.board.facts import GIB
from rk_gemma_runtime.bundle import Bundle, Manifest, ModelFacts, NpuPart
from rk_gemma_runtime.errors import EngineError, NpuError, NpuReason, WorkerDied
from rk_gemma_runtime.jobs import Setup
from rk_gemma_runtime.loading import NpuLoader
from rk_gemma_runtime.memory.plan import plan_bundle
from rk_gemma_runtime.supervisor import Source
from rk_gemma_runtime.wire import Loaded

if TYPE_CHECKING:
    from rk_gemma_runtime.supervisor import Backend

SHAPE = {"hidden": 512, "layers": 4, "heads": 4, "kv_heads": 4, "head_dim": 128, "ffn": 1024}
HEALTHY = Board(npu=Npu("0.9.8", "RK3588", "/dev/dri/renderD129", True, True), memory=Memory(8 * GIB, 7 * GIB, 0, 0))
FILES = (1024, 102_400)
ASKED = Source("npu", Setup("m.sim", 4096))
ON_NODE = replace(ASKED.setup, device=HEALTHY.npu.node or "")


def bundle(**changes: Any) -> Bundle:
    npu = NpuPart("m.sim", "sim", "w8a8", "RK3588", "1.3.0", 4096, 3)
    manifest = Manifest(ModelFacts("gemma2", "small"), 4096, 1000, 2, (1,), "none", npu, shape=SHAPE)
    return Bundle(Path("nowhere"), replace(manifest, **changes))


class Answers:
    """Answers loads in turn: an error is raised, anything else loads. Remembers what was asked."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers, self.asked = list(answers), cast("list[tuple[int, int]]", [])
        self.sources: list[Source] = []

    def __call__(self, source: Source) -> Backend:
        self.sources.append(source)
        self.asked.append((source.setup.context, source.setup.domain))
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        loaded = Loaded("1.3.0", *FILES)
        return cast("Backend", SimpleNamespace(source=source, loaded=loaded))


def loader(board: Board = HEALTHY, **how: Any) -> tuple[NpuLoader, list[str]]:
    said: list[str] = []
    return NpuLoader(bundle(), board, on_remedy=lambda a: said.append(a.text), **how), said


def full() -> NpuError:
    return NpuError("no addresses", NpuReason.IOVA_EXHAUSTED)


def killed() -> NpuError:
    return NpuError("no memory", NpuReason.NO_RAM)


def test_a_plan_that_says_no_loads_nothing_unless_forced() -> None:
    old = replace(HEALTHY, npu=replace(HEALTHY.npu, access=False))
    tried = Answers()
    with pytest.raises(NpuError, match="may not be opened") as caught:
        loader(old)[0].open(ASKED, tried)
    assert (caught.value.reason, tried.asked) == (NpuReason.PERMISSION, [])
    assert "sudo usermod -aG render" in caught.value.remedy and "--force" in caught.value.remedy
    assert loader(old, force=True)[0].open(ASKED, tried).source.setup == ON_NODE


def test_without_a_known_shape_or_type_the_library_has_the_word_and_the_board_still_counts() -> None:
    for unknown in ({"shape": {}}, {"npu": NpuPart("m", "rkllm", "w4a16", "RK3588", "1.3.0", 4096, 3)}):
        made = bundle(**unknown)
        assert plan_bundle(made, HEALTHY) is None
        assert NpuLoader(made, HEALTHY).open(ASKED, Answers()).source.setup == ON_NODE
        with pytest.raises(NpuError, match="no rknpu driver"):
            NpuLoader(made, Board(npu=Npu(driver=""))).open(ASKED, Answers())


def test_a_full_domain_is_left_once_and_the_next_load_begins_where_it_worked() -> None:
    chosen, said = loader()
    tried = Answers(full())
    assert chosen.open(ASKED, tried).source.setup.domain == 1
    assert (tried.asked, said) == ([(4096, 0), (4096, 1)], ["IOMMU domain 1 in place of 0"])
    again = Answers()
    chosen.open(ASKED, again)
    assert (again.asked, len(said)) == ([(4096, 1)], 1)


def test_what_did_not_help_is_told_with_the_first_error_and_forgotten() -> None:
    chosen, said = loader()
    first = full()
    with pytest.raises(NpuError, match=r"^no addresses; IOMMU domain 1 in place of 0 did not help$") as caught:
        chosen.open(ASKED, Answers(first, full(), full()))
    assert caught.value is first
    again = Answers()
    chosen.open(ASKED, again)
    assert (again.asked, said) == ([(4096, 0)], [])


def test_the_planned_domain_is_the_one_that_fits() -> None:
    held = tuple(Hold(n, (4 * GIB - 4096,), "others") for n in range(3))
    tried = Answers()
    loader(replace(HEALTHY, npu=replace(HEALTHY.npu, holds=held)))[0].open(ASKED, tried)
    assert tried.asked == [(4096, 3)]


def test_a_context_shrinks_where_allowed_and_is_asked_in_full_the_next_time() -> None:
    chosen, said = loader(shrink=True)
    tried = Answers(killed())
    chosen.open(ASKED, tried)
    assert tried.asked == [(4096, 0), (2048, 0)]
    assert said == ["a context of 2048 in place of 4096"]
    again = Answers()
    chosen.open(ASKED, again)
    assert again.asked == [(4096, 0)]
    with pytest.raises(NpuError):
        loader()[0].open(ASKED, Answers(killed()))


@pytest.mark.parametrize("error", [EngineError("broken frame"), KeyboardInterrupt()])
def test_another_end_leaves_what_was_asked_as_it_was(error: Exception) -> None:
    chosen, _ = loader()
    with pytest.raises(type(error)):
        chosen.open(ASKED, Answers(full(), error))
    again = Answers()
    chosen.open(ASKED, again)
    assert again.asked == [(4096, 0)]


def test_the_workers_descriptors_are_a_remedy_that_is_not_spoken_of_and_the_plan_gives_the_prompts_patience() -> None:
    chosen, said = loader()
    tried = Answers()
    chosen.open(ASKED, tried)
    assert [a.text for a in chosen.applied] == ["102400 open files in place of 1024"]
    assert said == []
    (source,) = tried.sources
    assert 0 < source.prompt_token_s < 1
    assert source.board is HEALTHY


def test_a_crash_is_not_tried_again() -> None:
    tried = Answers(WorkerDied("was ended by SIGSEGV", status=-11))
    with pytest.raises(WorkerDied):
        loader()[0].open(ASKED, tried)
    assert len(tried.asked) == 1


def test_every_cause_of_a_plan_has_a_reason() -> None:
    import re

    texts = [(Path(__file__).parents[2] / "runtime/rk_gemma_runtime/memory" / name).read_text(encoding="utf-8")
             for name in ("reasons.py", "plan.py", "fit.py")]  # fmt: skip
    causes = {cause for text in texts for cause in re.findall(r'(?:Reason|Refusal)\(\s*"(\w+)"', text)}
    assert len(causes) >= 8
    assert causes <= {reason.value for reason in NpuReason}
