"""Several sequences in one handle: each is what it is alone, and one callback tells of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import LAYOUTS
from simadapter import random_pairs, write_adapter
from simlib import ERROR, FINISH, GET_HIDDEN, GET_LOGITS, NORMAL, Abi, Handle
from simrequest import Given
from simwriter import Checkpoint, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simlib import Run

pytestmark = pytest.mark.board

RNG = np.random.default_rng(61)
PROMPTS = [RNG.integers(3, 256, n).tolist() for n in (20, 7, 33, 12, 3, 70, 9, 15)]
LAYOUTS_WITH = [layout for layout in LAYOUTS if layout in ("1.2.1", "1.3.0", "1.3.1")]
PARAMS: dict[str, Any] = {"presence_penalty": 1000.0}


@pytest.fixture
def endless(checkpoints: dict[str, Checkpoint], tmp_path: Path) -> Path:
    """An EOS that these prompts do not come to."""
    base = checkpoints["tiny-gemma2"]
    return write_checkpoint(tmp_path / "endless.sim", Checkpoint(base.keys, base.weights, None, {"eos": "0"}))


def batch(count: int) -> dict[str, Any]:
    return {**PARAMS, "extend": {"n_batch": count}}


@pytest.mark.parametrize("layout", LAYOUTS_WITH)
@pytest.mark.parametrize("count", [2, 3, 8])
def test_each_is_what_it_is_alone(layout: str, count: int, abis: dict[str, Abi], endless: Path) -> None:
    with Handle(abis[layout], endless, max_new_tokens=9, **PARAMS) as handle:
        alone = [handle.run(prompt) for prompt in PROMPTS[:count]]
    with Handle(abis[layout], endless, max_new_tokens=9, **batch(count)) as handle:
        runs = handle.run_all(PROMPTS[:count])
        assert [run.tokens for run in runs] == [run.tokens for run in alone]
        assert all(run.states == [NORMAL] * 9 + [FINISH] for run in runs)
        assert runs[0].perf["prefill_tokens"] == sum(map(len, PROMPTS[:count]))
        assert runs[0].perf["generate_tokens"] == 9 * count
        assert handle.sizes() == [len(prompt) + 8 for prompt in PROMPTS[:count]]
        again = handle.run_all(PROMPTS[:count])
        assert [run.tokens for run in again] == [run.tokens for run in alone]
        assert again[0].perf["prefill_tokens"] == count


def test_sequences_end_one_by_one(
    abi: Abi, endless: Path, checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    """One that has ended shows id -1 and no text; FINISH comes when the last one has, with each one's EOS."""
    with Handle(abi, endless, **PARAMS) as handle:
        alone = [handle.run(prompt, new=12).tokens for prompt in PROMPTS[:3]]
    eos = next(t for t in alone[1][2:] if t not in alone[0] and t not in alone[2])
    stop = alone[1].index(eos)
    base = checkpoints["tiny-gemma2"]
    pieces = [f"<{i}>".encode() for i in range(512)]
    path = write_checkpoint(tmp_path / "m.sim", Checkpoint(base.keys, base.weights, pieces, {"eos": str(eos)}))
    with Handle(abi, path, **batch(3)) as handle:
        runs = handle.run_all(PROMPTS[:3], new=12)
    assert [run.tokens for run in runs] == [alone[0], alone[1][:stop], alone[2]]
    assert runs[1].ids == alone[1][:stop] + [-1] * (12 - stop) + [eos]
    assert runs[1].texts[stop:] == [None] * (13 - stop) and runs[0].texts[3] == f"<{alone[0][3]}>".encode()
    assert [run.ids[-1] for run in runs] == [-1, eos, -1]


def test_pause_ranges_and_history(abi: Abi, endless: Path) -> None:
    def pause(run: Run) -> int:
        return int(len(run.tokens) == 2)

    with Handle(abi, endless, **batch(2)) as handle:
        handle.on_token = pause
        first = handle.run_all(PROMPTS[:2], new=6)
        assert handle.clear([(4, 8), (0, 0)]) == 0
        assert handle.sizes() == [20 + 1 - 4, 7 + 1]
        handle.on_token = None
        second = handle.run_all([[5], [6, 7]], new=4, keep=1)
        assert second[0].perf["prefill_tokens"] == 2 + 3
        third = handle.run_all([[8], [9]], new=4, keep=1)
    with Handle(abi, endless, **PARAMS) as handle:
        whole = PROMPTS[1] + first[1].tokens + [6, 7] + second[1].tokens + [9]
        assert handle.run(whole, new=4).tokens == third[1].tokens


def test_adapters_rows_and_hidden_states(
    abi: Abi, endless: Path, checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    base = checkpoints["tiny-gemma2"]
    adapter = write_adapter(tmp_path / "a.sim", base, random_pairs(base, 6))
    given = [Given(ids=PROMPTS[0]), Given(rows=RNG.normal(0, 1, (5, 64)).astype(np.float32))]
    with Handle(abi, endless, **batch(2)) as both, Handle(abi, endless, **PARAMS) as one:
        both.load_lora(adapter, "a")
        one.load_lora(adapter, "a")
        for mode in (0, GET_HIDDEN):
            runs = both.run_all(given, new=5, lora="a", mode=mode)
            alone = [one.run(what, new=5, lora="a", mode=mode) for what in given]
            assert [run.tokens for run in runs] == [run.tokens for run in alone]
            for run, single in zip(runs, alone, strict=True):
                assert (run.values is None) is (single.values is None) is (mode == 0)
                assert mode == 0 or np.array_equal(run.values, single.values)  # type: ignore[arg-type]


def test_what_is_refused(
    abi: Abi, endless: Path, said: Callable[[], list[str]], profile: Callable[[str], Path]
) -> None:
    with Handle(abi, endless, **batch(2)) as handle:
        assert handle.run_all(PROMPTS[:2], mode=GET_LOGITS)[0].returned == -1
        assert "E rkllm: Getting the logits is not supported for multiple batches" in said()
        assert handle.run_all([PROMPTS[0], []], new=2)[0].returned == -1
        assert handle.run_all(PROMPTS[:2], new=2)[0].returned == 0
    profile("init: silent_fail")
    with Handle(abi, endless, **batch(2)) as handle:
        runs = handle.run_all(PROMPTS[:2], new=5)
        assert runs[0].returned == -1 and runs[0].states == runs[1].states == [ERROR]


def test_prompt_cache_for_all(abi: Abi, endless: Path, tmp_path: Path) -> None:
    shared = PROMPTS[5][:30]
    with Handle(abi, endless, **batch(2)) as handle:
        tokens = [run.tokens for run in handle.run_all([[*shared, 3], [*shared, 4]], new=4)]
        handle.run_all([shared, [5]], new=1, save=tmp_path / "c")
        handle.clear()
        assert handle.texts("load_prompt_cache", str(tmp_path / "c")) == 0
        runs = handle.run_all([[*shared, 3], [*shared, 4]], new=4)
        assert [run.tokens for run in runs] == tokens and runs[0].perf["prefill_tokens"] == 2
