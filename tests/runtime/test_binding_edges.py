"""Where a run, its callback and its arguments end: what a careless caller or an unlucky moment may do to them."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from adapted import ADAPTER, adapted_pair
from runtimekit import nothing, patient, source, wait_until

from rk_gemma_runtime.errors import NpuError, UnsupportedCall, UsageError
from rk_gemma_runtime.jobs import Finish, Request, RowsRequest, Sampling
from rk_gemma_runtime.librkllm.library import load
from rk_gemma_runtime.librkllm.session import GREEDY, CallbackReturn, InitOptions, Prompt, Session, Tokens
from rk_gemma_runtime.stop import Stop
from rk_gemma_runtime.supervisor import Backend

np = pytest.importorskip("numpy")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rk_gemma_runtime.assistant import Assistant
    from rk_gemma_runtime.librkllm.library import Library

pytestmark = pytest.mark.board
PROMPT = [2, 317, 425, 341, 82, 275]


@pytest.fixture(scope="module")
def library(simulator: Callable[[str], Path]) -> Library:
    return load(simulator("1.3.0"))


@contextmanager
def opened(library: Library, bundle: Path, **options: Any) -> Iterator[Session]:
    chosen = InitOptions(**{"context": 128, "sampling": GREEDY, "max_new_tokens": 8, **options})
    session = Session(library, bundle / "model.sim", chosen)
    try:
        yield session
    finally:
        session.close()


def answer(session: Session) -> list[int]:
    got: list[int] = []
    session.run(Tokens(PROMPT), lambda token, text: got.append(token))
    return got


def test_a_batch_session_takes_batches_only(library: Library, tiny_bundle: Path) -> None:
    """The library would read as many inputs as it was opened for, behind the one that it was given."""
    with opened(library, tiny_bundle, batch=3) as session:
        for call in (session.run, session.run_async):
            with pytest.raises(UsageError, match="run_batch"):
                call(Tokens(PROMPT), nothing)
        with pytest.raises(UsageError, match="run_batch"):
            session.hidden_states(Tokens(PROMPT))
        with pytest.raises(UsageError, match="2 inputs"):
            session.run_batch([Tokens(PROMPT)] * 2, lambda step: None)


def test_an_abort_for_one_run_does_not_hit_the_next(library: Library, tiny_bundle: Path) -> None:
    """A listener that raises at the last token leaves an abort on its way."""
    with opened(library, tiny_bundle) as session:
        wanted = answer(session)
        for _ in range(100):
            left = iter(range(len(wanted) - 1))

            def last(token: int, text: bytes, left: Iterator[int] = left) -> None:
                next(left)

            with pytest.raises(StopIteration):
                session.run(Tokens(PROMPT), last)
            assert answer(session) == wanted


def test_an_async_run_that_is_given_up_keeps_its_arguments(
    library: Library, tiny_bundle: Path, profile: Callable[..., Path]
) -> None:
    profile(token_delay_us=5000)
    with opened(library, tiny_bundle, max_new_tokens=60) as session:
        wanted = answer(session)
        session.clear()
        heard: list[int] = []
        with pytest.raises(NpuError, match="did not end within"):
            session.run_async(Tokens(PROMPT), lambda token, text: heard.append(token)).wait(0.02)
        count = len(heard)
        wait_until(lambda: not session.is_running(), "the library has obeyed the abort")
        assert heard == wanted[:count]
        assert answer(session) == wanted


def test_nothing_starts_while_a_run_that_was_given_up_goes_on(
    library: Library, tiny_bundle: Path, profile: Callable[..., Path]
) -> None:
    """It still reads its arguments, and the library obeys an abort between two tokens."""
    profile(token_delay_us=400_000)
    with opened(library, tiny_bundle, max_new_tokens=1) as session:
        with pytest.raises(NpuError, match="did not end within"):
            session.run_async(Tokens(PROMPT), nothing).wait(0.05)
        with pytest.raises(NpuError, match="has not ended yet"):
            answer(session)
        wait_until(lambda: not session.is_running(), "the library has obeyed the abort")
        assert len(answer(session)) == 1


def test_ctrl_c_in_a_callback_is_raised_by_the_run(library: Library, tiny_bundle: Path) -> None:
    def interrupted(token: int, text: bytes) -> None:
        raise KeyboardInterrupt

    with opened(library, tiny_bundle) as session, pytest.raises(KeyboardInterrupt):
        session.run(Tokens(PROMPT), interrupted)


@pytest.mark.parametrize("value", [1, True, "1", b"1", 2.0, object()])
def test_only_the_enum_means_anything_to_the_library(value: Any, library: Library, tiny_bundle: Path) -> None:
    with opened(library, tiny_bundle) as session:
        outcome = session.run(Tokens(PROMPT), lambda token, text: value)
        assert (outcome.finished, outcome.paused) == (True, False)
        assert session.run(Tokens(PROMPT), lambda token, text: CallbackReturn.PAUSE).paused


def test_a_nul_does_not_cut_a_text(library: Library, demo_bundle: Path) -> None:
    with opened(library, demo_bundle) as session:
        for call in (
            lambda: session.run(Prompt("a\0b"), nothing),
            lambda: session.set_chat_template("a\0b"),
            lambda: session.load_adapter("a\0b", demo_bundle / "x"),
        ):
            with pytest.raises(UsageError, match="NUL"):
                call()
        with pytest.raises(UsageError, match="token id"):
            session.run(Tokens([2**31]), nothing)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return adapted_pair(tmp_path_factory.mktemp("adapted"))


def test_rows_are_those_of_the_adapter(pair: tuple[Path, Path], assistant: Callable[..., Assistant]) -> None:
    plain, merged = assistant(pair[0], "npu"), assistant(pair[1], "npu")
    gemma = assistant(pair[0], "npu", adapter=ADAPTER)
    for name in ("logits", "hidden_states"):
        wanted = getattr(merged, name)(PROMPT)
        np.testing.assert_allclose(getattr(gemma, name)(PROMPT), wanted, atol=2e-3)
        assert np.abs(getattr(plain, name)(PROMPT) - wanted).max() > 0.5


def test_rows_that_nobody_reads_any_more_are_aborted(tiny_bundle: Path, simulator: Callable[[str], Path]) -> None:
    worker = Backend(source("npu", tiny_bundle / "model.sim", 128, 1, str(simulator("1.3.0"))))
    try:
        rows = worker.rows(RowsRequest(tuple(PROMPT)))
        next(rows)
        rows.close()  # type: ignore[attr-defined]
        *_, finish = worker.generate(Request(tuple(PROMPT), 4, (), Sampling(0.0)))
        assert finish.new_tokens == 4
    finally:
        worker.close()


def test_an_abort_while_the_model_is_loaded_again_is_kept(
    tiny_bundle: Path, simulator: Callable[[str], Path], profile: Callable[..., Path]
) -> None:
    worker = Backend(source("npu", tiny_bundle / "model.sim", 128, 1, str(simulator("1.2.1"))))
    try:
        profile(init_delay_ms=60_000)
        stop = Stop()
        threading.Timer(0.3, stop.wish).start()
        began = time.monotonic()
        (finish,) = worker.generate(Request((2, 5), 50, (), Sampling(0.0)), stop)
        assert isinstance(finish, Finish)
        assert (finish.reason, finish.new_tokens) == ("abort", 0)
        assert time.monotonic() - began < patient(5)
    finally:
        worker.close()


def test_a_reload_that_only_says_that_it_failed_has_failed(
    tiny_bundle: Path, simulator: Callable[[str], Path], profile: Callable[..., Path]
) -> None:
    path = profile()
    worker = Backend(source("npu", tiny_bundle / "model.sim", 128, 1, str(simulator("1.2.1"))))
    try:
        path.write_text("simulator:\n  init: silent_fail\n")
        with pytest.raises(NpuError, match=r"does not run|failed to malloc|run failed"):
            list(worker.generate(Request((2, 5), 3, (), Sampling(0.0))))
    finally:
        worker.close()


def test_an_error_quotes_its_own_request(tiny_bundle: Path, simulator: Callable[[str], Path]) -> None:
    worker = Backend(source("npu", tiny_bundle / "model.sim", 64, 1, str(simulator("1.1.0"))))
    try:
        with pytest.raises(NpuError, match="greater than max context"):
            list(worker.rows(RowsRequest((5,) * 100, hidden=True)))
        with pytest.raises(UnsupportedCall) as caught:
            list(worker.rows(RowsRequest((2, 5))))
        assert "max context" not in str(caught.value)
    finally:
        worker.close()


def test_the_same_greedy_request_does_not_load_again(tiny_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    gemma = assistant(tiny_bundle, "npu", "1.2.1", sampling=Sampling(0.0))
    list(gemma.generate([2, 5], max_tokens=2, sampling=Sampling(0.0, top_k=7, top_p=0.5)))
    assert gemma.last is not None
    assert gemma.last.reload_s == 0


def test_a_long_temporary_directory_is_no_obstacle(
    tiny_bundle: Path, assistant: Callable[..., Assistant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp's socket needs a name, and a Unix socket's may have 107 bytes."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    gemma = assistant(tiny_bundle, "cpu")
    list(gemma.generate([2, 5], max_tokens=2))
