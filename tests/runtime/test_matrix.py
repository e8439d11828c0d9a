"""Every feature of librkllm in every layout, through the binding: right where the release has it, and refused by both
versions' names where it has not. The table in docs/librkllm.md is held against this file."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from adapted import ADAPTER, adapted_pair
from runtimekit import ROOT, forgets_on_rewind, tolerance

from rk_gemma_runtime.errors import UnsupportedCall
from rk_gemma_runtime.librkllm.abi import LAYOUTS
from rk_gemma_runtime.librkllm.library import load
from rk_gemma_runtime.librkllm.session import CallbackReturn, InitOptions, RkSampling, RunOptions, Session, Tokens

np = pytest.importorskip("numpy")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from rk_gemma_runtime.librkllm.library import Library

pytestmark = pytest.mark.board

GREEDY = RkSampling(1, 1.0, 0.0)
NEW = 12
# feature -> the first release that has it; every library answers what it has not with UnsupportedCall.
SINCE = {
    "generate": "1.1.0", "abort": "1.1.0", "reuse": "1.2.0", "adapters": "1.1.0", "prompt cache": "1.1.0",
    "hidden states": "1.1.0", "logits": "1.2.0", "pause": "1.2.1", "batch": "1.2.1",
}  # fmt: skip


@pytest.fixture(scope="module")
def libraries(simulator: Callable[[str], Path]) -> dict[str, Library]:
    return {name: load(simulator(name)) for name in LAYOUTS}


@pytest.fixture(params=LAYOUTS)
def library(request: pytest.FixtureRequest, libraries: dict[str, Library]) -> Library:
    return libraries[request.param]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return adapted_pair(tmp_path_factory.mktemp("adapted"))


@pytest.fixture
def open_session(library: Library) -> Iterator[Callable[..., Session]]:
    """open_session(bundle, option=value): closed at the end."""
    sessions: list[Session] = []

    def make(bundle: Path, **options: Any) -> Session:
        chosen = InitOptions(**{"context": 128, "sampling": GREEDY, "max_new_tokens": NEW, **options})
        sessions.append(session := Session(library, bundle / "model.sim", chosen))
        if "rkllm_set_chat_template" in library.layout.functions:  # as the NPU engine does
            session.set_chat_template()
        return session

    yield make
    for session in sessions:
        session.close()


def has(library: Library, feature: str) -> bool:
    order = list(LAYOUTS)
    return order.index(library.layout.name) >= order.index(SINCE[feature])


def refused(library: Library, feature: str) -> Any:
    return pytest.raises(UnsupportedCall, match=rf"librkllmrt {library.version} has no .*came with {SINCE[feature]}")


def ids_of(session: Session, prompt: list[int], options: RunOptions | None = None) -> list[int]:
    got: list[int] = []
    session.run(Tokens(prompt), lambda token, text: got.append(token), options)
    return got


def numbers(golden: dict[str, Mapping[str, Any]], which: int) -> tuple[list[int], list[int]]:
    tiny = golden["tiny-gemma2"]
    return tiny[f"prompt_{which}"].tolist(), tiny[f"greedy_{which}"].tolist()[:NEW]


def test_generate(open_session: Callable[..., Session], tiny_bundle: Path, golden: dict[str, Any]) -> None:
    session = open_session(tiny_bundle)
    for which in (5, 6):
        prompt, wanted = numbers(golden, which)
        assert ids_of(session, prompt) == wanted


def test_abort(
    open_session: Callable[..., Session], tiny_bundle: Path, golden: dict[str, Any], profile: Callable[..., Path]
) -> None:
    profile(token_delay_us=5000)
    session = open_session(tiny_bundle, max_new_tokens=90)
    prompt, wanted = numbers(golden, 6)
    got: list[int] = []
    third = threading.Event()

    def on_token(token: int, text: bytes) -> None:
        got.append(token)
        if len(got) == 3:
            third.set()

    def stop() -> None:
        third.wait()
        session.abort()

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    session.run(Tokens(prompt), on_token)
    thread.join()
    assert 3 <= len(got) < 90
    assert got[:3] == wanted[:3]
    assert not session.is_running()
    assert ids_of(open_session(tiny_bundle), prompt) == wanted
    session.clear()
    assert ids_of(session, prompt[:5])[:NEW] == ids_of(open_session(tiny_bundle), prompt[:5])


def test_reuse(
    open_session: Callable[..., Session], tiny_bundle: Path, golden: dict[str, Any], library: Library
) -> None:
    session = open_session(tiny_bundle)
    prompt, wanted = numbers(golden, 6)
    assert ids_of(session, prompt) == wanted
    longer = [*prompt, *wanted, 33, 34]
    seen: list[int] = []
    outcome = session.run(Tokens(longer), lambda token, text: seen.append(token))
    assert seen == ids_of(open_session(tiny_bundle), longer)
    if outcome.perf is not None:
        assert outcome.perf.prefill_tokens <= 3  # the last token of the answer was never in the cache
        assert outcome.perf.generate_tokens == NEW - (library.layout.name >= "1.2.1")  # the first is the prefill's
    if not has(library, "reuse"):
        with refused(library, "reuse"):
            session.run(Tokens([5]), lambda token, text: None, RunOptions(keep_history=True))
    else:
        session.clear()
        ids_of(session, prompt)
        more: list[int] = []
        session.run(Tokens([33, 34]), lambda token, text: more.append(token), RunOptions(keep_history=True))
        assert more == seen


def test_adapters(open_session: Callable[..., Session], adapted: tuple[Path, Path], golden: dict[str, Any]) -> None:
    bundle, merged = adapted
    session, other = open_session(bundle), open_session(merged)
    prompt, wanted = numbers(golden, 6)
    file = bundle / f"{ADAPTER}.lora.sim"
    session.load_adapter("full", file)
    session.load_adapter("none", file, 0.0)
    states = session.hidden_states(Tokens(prompt), RunOptions(adapter="full"))
    np.testing.assert_allclose(states, other.hidden_states(Tokens(prompt)), atol=2e-3)
    assert ids_of(session, prompt, RunOptions(adapter="full")) == ids_of(other, prompt) != wanted
    assert ids_of(session, prompt, RunOptions(adapter="none")) == wanted
    assert ids_of(session, prompt) == wanted


def test_prompt_cache(
    open_session: Callable[..., Session],
    tiny_bundle: Path,
    golden: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    prompt, wanted = numbers(golden, 6)
    file = tmp_path / "prompt.cache"
    first = open_session(tiny_bundle)
    assert ids_of(first, prompt, RunOptions(save_cache=file)) == wanted
    assert file.stat().st_size > 0
    capfd.readouterr()
    second = open_session(tiny_bundle)
    second.load_prompt_cache(file)
    assert f"loaded a prompt cache with prompt size of {len(prompt)} tokens" in capfd.readouterr().out
    got: list[int] = []
    outcome = second.run(Tokens(prompt), lambda token, text: got.append(token))
    assert got == wanted
    if outcome.perf is not None and not forgets_on_rewind():
        assert outcome.perf.prefill_tokens == 1
    second.release_prompt_cache()
    assert ids_of(second, prompt) == wanted


def test_logits(
    open_session: Callable[..., Session], tiny_bundle: Path, golden: dict[str, Any], library: Library
) -> None:
    session = open_session(tiny_bundle)
    prompt, _ = numbers(golden, 7)
    if not has(library, "logits"):
        with refused(library, "logits"):
            session.logits(Tokens(prompt))
        return
    np.testing.assert_allclose(session.logits(Tokens(prompt)), golden["tiny-gemma2"]["logits_7"], atol=tolerance())


def test_hidden_states(open_session: Callable[..., Session], tiny_bundle: Path, golden: dict[str, Any]) -> None:
    session = open_session(tiny_bundle)
    prompt, wanted = numbers(golden, 7)
    states = session.hidden_states(Tokens(prompt))
    np.testing.assert_allclose(states, golden["tiny-gemma2"]["hidden_7"][-1], atol=tolerance())
    assert ids_of(session, prompt) == wanted


def test_pause(
    open_session: Callable[..., Session], tiny_bundle: Path, golden: dict[str, Any], library: Library
) -> None:
    session = open_session(tiny_bundle)
    prompt, wanted = numbers(golden, 6)
    got: list[int] = []

    def third(token: int, text: bytes) -> int:
        got.append(token)
        return CallbackReturn.PAUSE if len(got) == 3 else CallbackReturn.CONTINUE

    if not has(library, "pause"):
        with refused(library, "pause"):
            session.run(Tokens(prompt), third)
        return
    outcome = session.run(Tokens(prompt), third)
    assert (outcome.paused, outcome.finished, got) == (True, False, wanted[:3])
    assert session.cache_sizes()[0] in {len(prompt) + 2, len(prompt) + 3}
    more = ids_of(session, [33, 34])
    assert more == ids_of(open_session(tiny_bundle), [*prompt, *wanted[:3], 33, 34])


def test_batch(
    open_session: Callable[..., Session], tiny_bundle: Path, golden: dict[str, Any], library: Library
) -> None:
    if not has(library, "batch"):
        with refused(library, "batch"):
            open_session(tiny_bundle, batch=3)
        return
    session = open_session(tiny_bundle, batch=3)
    cases = [numbers(golden, which) for which in (4, 5, 6)]
    lanes: list[list[int]] = [[], [], []]

    def on_step(step: tuple[tuple[int, bytes], ...]) -> None:
        for lane, (token, _) in zip(lanes, step, strict=True):
            if token >= 0:
                lane.append(token)

    session.run_batch([Tokens(prompt) for prompt, _ in cases], on_step)
    assert lanes == [wanted for _, wanted in cases]
    assert len(session.cache_sizes()) == 3


def table() -> str:
    """The table of docs/librkllm.md: a feature's row says which layouts have it."""
    order = list(LAYOUTS)
    lines = [f"| feature | {' | '.join(order)} |", f"|---|{'---|' * len(order)}"]
    for feature, first in SINCE.items():
        marks = ["yes" if order.index(name) >= order.index(first) else "-" for name in order]
        lines.append(f"| {feature} | {' | '.join(marks)} |")
    return "\n".join(lines)


def test_the_table_in_the_document_is_this_matrix() -> None:
    text = (ROOT / "docs" / "librkllm.md").read_text()
    assert table() in text


def test_every_row_of_the_table_is_a_test() -> None:
    assert {f"test_{feature.replace(' ', '_')}" for feature in SINCE} <= set(globals())
