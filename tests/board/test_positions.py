"""Positions that go and positions that move: a full context, ranges, and runs that go on after a pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import LAYOUTS
from reference import Reference, read
from simlib import DISTINCT, FINISH, GET_HIDDEN, NORMAL, Abi, Handle
from simrequest import Given

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simlib import Run

pytestmark = pytest.mark.board

IDS = np.random.default_rng(51).integers(3, 250, 60).tolist()
PAUSING = [layout for layout in LAYOUTS if layout in ("1.2.1", "1.3.0", "1.3.1")]
VOID = ["1.1.0", "1.2.0", "1.2.1b1"]
NEAR = 2e-2  # two largest logits closer than this may change places with the order of sums


@pytest.fixture
def float_model(model: Callable[[str, str], Path]) -> Path:
    return model("synthetic", "fp16")


def pause_after(handle: Handle, count: int) -> None:
    def answer(run: Run) -> int:
        return int(len(run.tokens) == count)

    handle.on_token = answer


class Follower:
    """Feeds a reference what the library emitted, and holds each token to be its best among those not seen lately."""

    def __init__(self, path: Path, prompt: list[int]) -> None:
        self.reference, self.seen = Reference(read(path)), list(prompt)
        self.logits = self.reference.run(prompt)[0][-1]

    @property
    def size(self) -> int:
        return len(self.reference.keys[0])

    def expect(self, token: int) -> None:
        allowed = self.logits.copy()
        allowed[self.seen[-64:]] -= 1000
        assert allowed.max() - allowed[token] < NEAR
        self.seen.append(token)

    def feed(self, *tokens: int) -> None:
        self.logits = self.reference.run(list(tokens))[0][-1]


@pytest.mark.parametrize("keep", [-1, 0, 5])
def test_a_full_context_shifts(keep: int, abi: Abi, float_model: Path, said: Callable[[], list[str]]) -> None:
    """The first n_keep stay, half of the rest goes, keys turn to their new places, and generation goes on."""
    kept, follower = max(keep, 0), Follower(float_model, IDS[:20])
    with Handle(abi, float_model, max_context_len=32, n_keep=keep, ignore_eos_token=True) as handle:
        tokens = handle.run(IDS[:20], new=60, sampling=DISTINCT).tokens
    assert len(tokens) == 60 and len(set(tokens)) > 40
    expected = []
    for token in tokens:
        follower.expect(token)
        if follower.size == 32:
            gone = (32 - kept) // 2
            expected.append(f"I rkllm: context to be full[32 + 1], delete the kv cache in [{kept}, {kept + gone}), "
                            f"total: {gone}")  # fmt: skip
            follower.reference.remove(kept, kept + gone)
        follower.feed(token)
    assert [line for line in said() if "context to be full" in line] == expected and len(expected) > 2


def test_a_conversation_shifts(abi: Abi, float_model: Path, said: Callable[[], list[str]]) -> None:
    follower = Follower(float_model, IDS[:20])
    with Handle(abi, float_model, max_context_len=32, n_keep=3, ignore_eos_token=True) as handle:
        first = handle.run(IDS[:20], new=4, keep=1, sampling=DISTINCT).tokens
        follower.feed(*first[:-1])
        second = handle.run(IDS[20:35], new=3, keep=1, sampling=DISTINCT)
        follower.seen += first + IDS[20:35]
        # 23 in the cache, one pending, 15 new and one to come: half of the 20 that may go is enough.
        follower.reference.remove(3, 3 + 10)
        follower.feed(first[-1], *IDS[20:35])
        for token in second.tokens:
            follower.expect(token)
            follower.feed(token)
        assert "I rkllm: context to be full[23 + 17], delete the kv cache in [3, 13), total: 10" in said()
        assert second.perf["prefill_tokens"] == 16
        assert handle.run(IDS[:29], new=1, keep=1).returned == -1
        assert any("the context is not enough! history_s: " in line for line in said())
        assert handle.run(IDS[:32], new=1).returned == -1


def test_what_moved_is_never_taken_for_a_prefix(abi: Abi, tiny: Path) -> None:
    with Handle(abi, tiny, max_context_len=32, n_keep=4) as handle:
        alone = handle.run(IDS[:20], new=4, sampling=DISTINCT).tokens
        handle.clear()
        long = handle.run(IDS[:20], new=40, sampling=DISTINCT).tokens
        assert long[:4] == alone
        again = handle.run(IDS[:20], new=4, sampling=DISTINCT)
        assert again.perf["prefill_tokens"] == 16 and again.tokens == alone


@pytest.mark.parametrize("layout", PAUSING)
def test_a_pause_and_a_range_in_the_middle(layout: str, abis: dict[str, Abi], float_model: Path) -> None:
    """The next run goes on behind the last emitted token, whatever keep_history says."""
    follower = Follower(float_model, IDS[:20])
    with Handle(abis[layout], float_model, max_new_tokens=5, presence_penalty=1000.0) as handle:
        pause_after(handle, 3)
        first = handle.run(IDS[:20])
        assert (first.returned, first.states) == (0, [NORMAL] * 3)
        assert handle.sizes() == [22] and handle.call("is_running") == 0
        assert handle.clear([(6, 11)]) == 0
        assert handle.sizes() == [17]
        follower.feed(*first.tokens[:-1])
        follower.reference.remove(6, 11)
        handle.on_token = None
        second = handle.run(IDS[20:23])
        assert second.states[-1] == FINISH and second.perf["prefill_tokens"] == 4
        follower.feed(first.tokens[-1], *IDS[20:23])
        follower.seen += first.tokens + IDS[20:23]
        for token in second.tokens:
            follower.expect(token)
            follower.feed(token)
        third = handle.run(IDS[20:23])  # a run of its own again
        assert third.perf["prefill_tokens"] == 3


@pytest.mark.parametrize("layout", PAUSING)
def test_going_on_equals_not_pausing(layout: str, abis: dict[str, Abi], tiny: Path) -> None:
    with Handle(abis[layout], tiny, presence_penalty=1000.0, max_new_tokens=10) as handle:
        whole = handle.run(IDS[:20]).tokens
        handle.clear()
        pause_after(handle, 4)
        first = handle.run(IDS[:20]).tokens
        handle.on_token = None
        assert first + handle.run([]).tokens == whole + handle.currents[0].tokens[6:]


def test_after_a_pause(abi: Abi, tiny: Path, said: Callable[[], list[str]]) -> None:
    with Handle(abi, tiny, max_context_len=64) as handle:
        only = [line for line in said() if "start_pos" in line]
        assert handle.clear([(0, 1)]) == -1
        assert handle.run([]).returned == -1
        pause_after(handle, 2)
        handle.run(IDS[:10], new=5)
        for begin, end in ((-1, 3), (5, 3)):
            assert handle.clear([(begin, end)]) == -1
        only = [line for line in said() if line.startswith("E")]
        assert only[0].startswith("E rkllm: start_pos and end_pos are only valid when keep_history == 0")
        assert only[-1] == "E rkllm: failed to clear kv cache"
        assert handle.clear([(4, 100)]) == 0 and handle.sizes() == [4]
        handle.on_token = None
        assert handle.run(IDS[:3], new=1).perf["prefill_tokens"] == 3  # the emitted token went with the end
        pause_after(handle, 2)
        handle.run(IDS[:10], new=5)
        assert handle.clear([(0, 100)]) == 0 and handle.clear([(0, 0)]) == -1
        handle.on_token = None
        assert handle.run(IDS[:3], new=1).perf["prefill_tokens"] == 3
        pause_after(handle, 2)
        handle.run(IDS[:10], new=5, keep=1)
        assert handle.clear([(2, 4)]) == -1  # only with keep_history 0


@pytest.mark.parametrize("layout", VOID)
def test_old_callbacks_cannot_pause(layout: str, abis: dict[str, Abi], tiny: Path) -> None:
    with Handle(abis[layout], tiny, max_new_tokens=5) as handle:
        pause_after(handle, 2)
        assert handle.run(IDS[:5]).states == [NORMAL] * 5 + [FINISH]


def test_a_resumed_text_is_taken_as_it_is(abi: Abi, demo_words: Path, prompt_ids: Callable[..., list[int]]) -> None:
    from test_text_input import SP

    with Handle(abi, demo_words, max_context_len=256) as handle:
        pause_after(handle, 2)
        prompt_ids(handle, Given(text="hello"), new=5)
        handle.on_token = None
        assert prompt_ids(handle, Given(text=" wait"), new=2) == SP.encode(" wait")


def test_the_output_modes_begin_afresh(abi: Abi, tiny: Path) -> None:
    with Handle(abi, tiny) as handle:
        pause_after(handle, 2)
        handle.run(IDS[:10], new=5)
        handle.on_token = None
        values = handle.run(IDS[:4], mode=GET_HIDDEN).values
        assert values is not None and len(values) == 4 and handle.sizes() == [4]
