"""What a run tells its callback, and how it ends."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from simlib import FINISH, GET_HIDDEN, HIDDEN_1_1, NORMAL, WAITING, Handle, Run
from simwriter import Checkpoint, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from simlib import Abi

pytestmark = pytest.mark.board

IDS = [2, 10, 20, 30]


def variant(base: Checkpoint, folder: Path, pieces: list[bytes] | None = None, **keys: object) -> Path:
    changed = Checkpoint(base.keys, base.weights, pieces, keys)
    return write_checkpoint(folder / "variant.sim", changed, "w8a8")


@pytest.fixture
def cycle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """A profile that emits fixed ids; vocab 512 makes them 256, 257, ..."""
    (tmp_path / "cycle.yaml").write_text("simulator:\n  compute: false\n")
    monkeypatch.setenv("RK_GEMMA_SIM_PROFILE", str(tmp_path / "cycle.yaml"))
    return list(range(256, 256 + 61))


def wait_until(condition: object, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.001)
    assert condition()  # type: ignore[operator]


def test_characters_come_whole(
    abi: Abi, checkpoints: dict[str, Checkpoint], tmp_path: Path, cycle: list[int]
) -> None:
    pieces = [b""] * 512
    pieces[256:262] = [b"a", b"\xf0\x9f", b"\x98", b"\x80b", b"\xff", b" c"]
    with Handle(abi, variant(checkpoints["tiny-gemma2"], tmp_path, pieces)) as handle:
        run = handle.run(IDS, new=6)
    assert run.tokens == cycle[:6]
    assert run.states == [NORMAL, WAITING, WAITING, NORMAL, NORMAL, NORMAL, FINISH]
    assert run.texts == [b"a", b"", b"", "\U0001f600b".encode(), b"\xff", b" c", None]


def test_without_pieces_text_is_empty(abi: Abi, tiny: Path, cycle: list[int]) -> None:
    with Handle(abi, tiny) as handle:
        assert handle.run(IDS, new=2).texts == [b"", b"", None]


def test_eos_of_each_layout(
    abis: dict[str, Abi], checkpoints: dict[str, Checkpoint], tmp_path: Path, tiny: Path
) -> None:
    with Handle(abis["1.3.0"], tiny) as handle:
        plain = handle.run(IDS, new=8).tokens
    stop = plain.index(plain[3])
    path = variant(checkpoints["tiny-gemma2"], tmp_path, eos=f"1,{plain[3]}")
    with Handle(abis["1.3.0"], path) as handle:
        run = handle.run(IDS, new=8)
        assert run.tokens == [*plain[:stop], plain[3]] and run.states[-1] == FINISH  # the end id comes as a token too
        assert run.texts[-2:] == [b"", None] and run.ids[-1] == plain[3]
    with Handle(abis["1.1.0"], path, max_new_tokens=8) as handle:
        assert handle.run(IDS).tokens == plain
    with Handle(abis["1.3.0"], path, ignore_eos_token=True) as handle:
        assert handle.run(IDS, new=8).tokens == plain


def test_limits(abi: Abi, tiny: Path, cycle: list[int]) -> None:
    with Handle(abi, tiny, max_new_tokens=3, max_context_len=32) as handle:
        assert len(handle.run(IDS).tokens) == 3
        assert len(handle.run(IDS, new=5).tokens) == 5
        assert len(handle.run(IDS, new=100).tokens) == 100  # the window moves on
        assert handle.run([5] * 32).returned == -1
        assert handle.run([5] * 31).returned == 0
        assert handle.run([]).returned == -1
        assert handle.run([512]).returned == -1 and handle.run([-1]).returned == -1


def test_perf_and_hidden_in_1_1_0(abis: dict[str, Abi], tiny: Path) -> None:
    with Handle(abis["1.1.0"], tiny) as handle:
        run = handle.run(IDS, mode=GET_HIDDEN)
        assert run.states == [HIDDEN_1_1, FINISH] and run.values is not None and run.values.shape == (4, 64)
    with Handle(abis["1.3.0"], tiny) as handle:
        perf = handle.run(IDS, new=3).perf
        assert perf["prefill_time_ms"] > 0 and perf["generate_time_ms"] > 0 and perf["memory_usage_mb"] > 1


def test_sampling(abi: Abi, tiny: Path) -> None:
    with Handle(abi, tiny) as handle:
        greedy = handle.run(IDS, new=12).tokens
        assert handle.run(IDS, new=12, sampling={"top_k": 1}).tokens == greedy
        assert handle.run(IDS, new=12, sampling={"top_k": 40, "top_p": 1e-6}).tokens == greedy
        assert handle.run(IDS, new=12, sampling={"temperature": 0.0}).tokens == greedy
        free = [handle.run(IDS, new=12, sampling={"top_k": 0, "temperature": 2.0}).tokens for _ in range(3)]
        assert len({tuple(tokens) for tokens in free}) == 3
        never_twice = {"top_k": 1, "presence_penalty": 1000.0}
        tokens = handle.run(IDS, new=30, sampling=never_twice).tokens
        assert len(set(tokens) | set(IDS)) == len(tokens) + len(IDS)


def test_a_seed_repeats(abi: Abi, tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "seed.yaml").write_text("simulator:\n  seed: 11\n")
    monkeypatch.setenv("RK_GEMMA_SIM_PROFILE", str(tmp_path / "seed.yaml"))
    runs = []
    for _ in range(2):
        with Handle(abi, tiny) as handle:
            runs.append(handle.run(IDS, new=20, sampling={"top_k": 0, "temperature": 1.5}).tokens)
    assert runs[0] == runs[1]


def test_draws_follow_the_probabilities(
    abi: Abi, tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "seed.yaml").write_text("simulator:\n  seed: 12\n")
    monkeypatch.setenv("RK_GEMMA_SIM_PROFILE", str(tmp_path / "seed.yaml"))
    with Handle(abi, tiny, ignore_eos_token=True) as handle:
        logits = handle.run(IDS, mode=2).values
        assert logits is not None
        odds = np.exp(logits[-1].astype(float)) / np.exp(logits[-1].astype(float)).sum()
        drawn = [handle.run(IDS, new=1, sampling={"top_k": 0}).tokens[0] for _ in range(1500)]
    best = int(odds.argmax())
    assert abs(drawn.count(best) / 1500 - odds[best]) < 0.05


def slow(monkeypatch: pytest.MonkeyPatch, folder: Path, more: str = "") -> None:
    (folder / "slow.yaml").write_text(f"simulator:\n  token_delay_us: 2000\n  compute: false\n{more}")
    monkeypatch.setenv("RK_GEMMA_SIM_PROFILE", str(folder / "slow.yaml"))


@pytest.mark.parametrize("told", [True, False])
def test_abort_from_another_thread(
    told: bool, abi: Abi, tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow(monkeypatch, tmp_path, f"  finish_after_abort: {str(told).lower()}\n")
    with Handle(abi, tiny) as handle:
        runs: list[Run] = []
        thread = handle.in_thread(lambda: runs.append(handle.run(IDS)))
        wait_until(lambda: len(handle.current.tokens) >= 2)
        assert handle.call("is_running") == 1 and handle.call("clear_kv_cache", 0, None, None) == -1
        assert handle.call("abort") == 0
        thread.join(5)
        assert runs[0].returned == 0 and len(runs[0].tokens) < 60
        assert (FINISH in runs[0].states) is told
        assert handle.call("is_running") == 0
        assert handle.run(IDS, new=2).states == [NORMAL, NORMAL, FINISH]


def test_async_and_a_second_run(abi: Abi, tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slow(monkeypatch, tmp_path)
    with Handle(abi, tiny) as handle:
        run = handle.run(IDS, new=10, asynchronous=True)
        assert run.returned == 0 and handle.call("is_running") == 1
        assert handle.run(IDS, new=1).returned == -1
        handle.currents = [run]
        wait_until(lambda: handle.call("is_running") == 0)


def test_destroy_during_a_run_and_from_inside_it(
    abi: Abi, tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow(monkeypatch, tmp_path)
    handle = Handle(abi, tiny)
    handle.run(IDS, asynchronous=True)
    assert handle.call("destroy") == 0 and handle.call("destroy") == -1 and handle.call("is_running") == -1
    inside = Handle(abi, tiny)
    inside.on_token = lambda run: inside.call("destroy")
    assert inside.run(IDS).returned == 0
    assert inside.call("destroy") == -1


def test_handles_are_independent(abi: Abi, tiny: Path) -> None:
    with Handle(abi, tiny) as one, Handle(abi, tiny) as two:
        alone = one.run(IDS, new=10).tokens
        runs: list[list[int]] = []

        def work(handle: Handle) -> None:
            runs.append(handle.run(IDS, new=10).tokens)

        threads = [h.in_thread(functools.partial(work, h)) for h in (one, two)]
        for thread in threads:
            thread.join(10)
        assert runs == [alone, alone]
