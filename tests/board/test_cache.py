"""Reuse of the KV cache never changes a result, and is what each layout does."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import pytest
from simlib import GET_LOGITS, Handle

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from simlib import Abi

pytestmark = pytest.mark.board

IDS = np.random.default_rng(5).integers(3, 256, 90).tolist()
DTYPES = ("fp16", "w8a8", "w8a8_g256")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prompt_is_its_tokens_one_by_one(
    dtype: str, abi: Abi, model: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Growing the prompt by one token computes each alone; bit-identical to all at once, on any threads."""
    results: list[list[int]] = []
    logits: list[bytes] = []
    for threads in (1, 3):
        profile = tmp_path / f"{threads}.yaml"
        profile.write_text(f"simulator:\n  threads: {threads}\n")
        monkeypatch.setenv("RK_GEMMA_SIM_PROFILE", str(profile))
        with Handle(abi, model("synthetic", dtype)) as handle:
            whole = handle.run(IDS[:70], new=8)
            assert whole.perf["prefill_tokens"] == 70
            results.append(whole.tokens)
            handle.call("clear_kv_cache", 0, None, None)
            for n in (1, 2, 3, 40, 69):
                assert handle.run(IDS[:n], new=1).returned == 0
            again = handle.run(IDS[:70], new=8)
            assert again.perf["prefill_tokens"] == 1
            results.append(again.tokens)
            values = handle.run(IDS[:70], mode=GET_LOGITS).values
            logits.append(b"" if values is None else values.tobytes())
    assert results[0] == results[1] == results[2] == results[3]
    assert logits[0] == logits[1] != b""


@pytest.mark.parametrize("isa", ["generic", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_bits(
    isa: str, outside: Callable[..., subprocess.CompletedProcess[str]], tiny: Path
) -> None:
    """A CPU without the set asked for uses its best one, which must agree as well."""
    runs = [outside(tiny, environment={"RK_GEMMA_SIM_ISA": name}) for name in ("generic", isa)]
    assert runs[0].stdout.splitlines()[-1] == runs[1].stdout.splitlines()[-1]


def test_the_common_prefix_is_kept(abi: Abi, tiny: Path) -> None:
    with Handle(abi, tiny) as handle:
        first = handle.run(IDS[:20], new=5)
        assert (first.perf["prefill_tokens"], first.perf["generate_tokens"]) == (
            20,
            4,
        )  # the first token is the prefill's
        turn = IDS[:20] + first.tokens + [7, 8]
        assert handle.run(turn, new=2).perf["prefill_tokens"] == 3  # the last token was emitted, not computed
        other = [*IDS[:11], 9, 9]
        assert handle.run(other, new=2).perf["prefill_tokens"] == 2
        fresh = handle.run(other, new=12).tokens
        handle.call("clear_kv_cache", 0, None, None)
        assert handle.run(other, new=12).tokens == fresh


def test_keep_history_appends(abi: Abi, tiny: Path) -> None:
    with Handle(abi, tiny) as handle:
        first = handle.run(IDS[:10], new=4, keep=1)
        second = handle.run(IDS[10:15], new=4, keep=1)
        assert second.perf["prefill_tokens"] == 6
        handle.call("clear_kv_cache", 1, None, None)
        assert handle.run(IDS[:10] + first.tokens + IDS[10:15], new=4).tokens == second.tokens


def test_logits_mode_starts_afresh(abi: Abi, tiny: Path) -> None:
    with Handle(abi, tiny) as handle:
        handle.run(IDS[:10], new=2)
        run = handle.run(IDS[:12], mode=GET_LOGITS)
        assert run.perf["prefill_tokens"] == 12
        assert run.states == [0, 2] and run.ids[0] == 0 and run.texts[1] is None


def test_cache_size_and_clear(abi: Abi, tiny: Path) -> None:
    with Handle(abi, tiny) as handle:
        size = ctypes.c_int(-1)
        handle.run(IDS[:10], new=3)
        assert handle.call("get_kv_cache_size", ctypes.byref(size)) == 0 and size.value == 12
        start, end = ctypes.c_int(2), ctypes.c_int(12)
        ranges = ctypes.byref(start), ctypes.byref(end)
        assert handle.call("clear_kv_cache", 0, *ranges) == -1  # only after a pause
        handle.on_token = lambda run: int(len(run.tokens) == 2)
        paused = handle.run(IDS[:10], new=5)
        assert paused.returned == 0 and paused.states == [0, 0]
        assert handle.call("clear_kv_cache", 0, *ranges) == 0
        handle.call("get_kv_cache_size", ctypes.byref(size))
        assert size.value == 2


def test_1_1_0_reuses_nothing_and_has_no_logits(abis: dict[str, Abi], tiny: Path) -> None:
    old = abis["1.1.0"]
    with Handle(old, tiny, max_new_tokens=6) as handle:
        runs = [handle.run(IDS[:9]) for _ in range(2)]
        assert runs[0].tokens == runs[1].tokens and len(runs[0].tokens) == 6
        assert handle.run(IDS[:9], mode=GET_LOGITS).returned == -1
    with Handle(abis["1.3.0"], tiny) as handle:
        assert handle.run(IDS[:9], new=6).tokens == runs[0].tokens
