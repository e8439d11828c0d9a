"""An answer is stopped: by abort, by leaving its iterator. It ends soon, and the next one is right."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from runtimekit import patient, source, wait_until

from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.jobs import Request, Sampling
from rk_gemma_runtime.stop import Stop
from rk_gemma_runtime.supervisor import Backend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma_runtime.assistant import Assistant

pytestmark = pytest.mark.board

BACKENDS = [("npu", "1.3.0"), ("npu", "1.1.0"), ("cpu", "1.3.0")]
SLOW = 50_000  # microseconds a token: an answer that is not stopped takes five seconds


def request(ids: list[int], most: int) -> Request:
    return Request(tuple(ids), most, (1,), Sampling(0.0))


def ask(gemma: Assistant, ids: list[int]) -> list[int]:
    list(gemma.generate(ids, max_tokens=24, temperature=0))
    assert gemma.last is not None
    return list(gemma.last.ids)


@pytest.mark.parametrize(("backend", "layout"), BACKENDS)
@pytest.mark.parametrize("after_abort", [True, False])
def test_abort_from_another_thread_ends_the_answer(
    backend: str,
    layout: str,
    after_abort: bool,
    tiny_bundle: Path,
    assistant: Callable[..., Assistant],
    profile: Callable[..., Path],
    golden: dict[str, Any],
) -> None:
    if backend == "cpu" and not after_abort:
        pytest.skip("a matter of the NPU library only")
    profile(token_delay_us=SLOW, finish_after_abort=after_abort)
    gemma = assistant(tiny_bundle, backend, layout)
    ids = golden["tiny-gemma2"]["prompt_6"].tolist()
    reason, count = "", 0
    for _ in range(5):  # the CPU may have come to the end before another thread has its turn
        reason, count = aborted(gemma, ids)
        if reason == "abort" or backend == "npu":
            break
    assert reason == "abort"
    assert count < 60 or backend == "cpu"
    assert ask(gemma, ids) == golden["tiny-gemma2"]["greedy_6"].tolist()


def aborted(gemma: Assistant, ids: list[int]) -> tuple[str, int]:
    """Stop an answer from another thread at its first token: how it ended, and after how many parts."""
    began, wish = threading.Event(), Stop()

    def stop() -> None:
        began.wait()
        wish.wish()

    thread = threading.Thread(target=stop)
    thread.start()
    items = []
    for item in gemma.model._backends.generate(request(ids, 90), wish):
        items.append(item)
        began.set()
    thread.join()
    return items[-1].reason, len(items)  # type: ignore[union-attr]


def test_abort_without_an_answer_does_nothing(
    tiny_bundle: Path, assistant: Callable[..., Assistant], golden: dict[str, Any]
) -> None:
    gemma = assistant(tiny_bundle, "npu")
    ids, wanted = (golden["tiny-gemma2"][f"{name}_6"].tolist() for name in ("prompt", "greedy"))
    gemma.abort()
    assert ask(gemma, ids) == wanted
    gemma.abort()
    assert ask(gemma, ids) == wanted


@pytest.mark.parametrize(("backend", "layout"), BACKENDS)
def test_leaving_the_iterator_stops_the_answer(
    backend: str,
    layout: str,
    tiny_bundle: Path,
    simulator: Callable[[str], Path],
    profile: Callable[..., Path],
    golden: dict[str, Any],
) -> None:
    profile(token_delay_us=SLOW)
    model = tiny_bundle / ("model.sim" if backend == "npu" else "model.gguf")
    worker = Backend(source(backend, model, 128, 1, str(simulator(layout))))
    ids, wanted = (golden["tiny-gemma2"][f"{name}_6"].tolist() for name in ("prompt", "greedy"))
    try:
        pid = worker.pid
        for _ in range(2):
            items = worker.generate(request(ids, 90))
            next(items)
            start = time.monotonic()
            items.close()
            assert time.monotonic() - start < patient(2)
        *tokens, finish = worker.generate(request(ids, 24))
        assert [i for t in tokens for i in t.ids] == wanted
        assert finish.reason == "length"
        assert worker.pid == pid or not worker.loaded.sampling_per_run
    finally:
        worker.close()


def test_leaving_when_the_rest_has_come_already_keeps_the_worker(
    tiny_bundle: Path, simulator: Callable[[str], Path], golden: dict[str, Any]
) -> None:
    """The end of the answer may lie in the same read as the token at which the caller leaves."""
    worker = Backend(source("npu", tiny_bundle / "model.sim", 128, 1, str(simulator("1.3.0"))))
    ids, wanted = (golden["tiny-gemma2"][f"{name}_6"].tolist() for name in ("prompt", "greedy"))

    def there() -> bytes:
        with suppress(BlockingIOError):
            return bytes(worker._channel._decoder._buffer) + worker._process.socket.recv(
                1 << 16, socket.MSG_PEEK | socket.MSG_DONTWAIT
            )
        return bytes(worker._channel._decoder._buffer)

    try:
        items = worker.generate(request(ids, 24))
        next(items)
        wait_until(lambda: b"finish" in there(), "the whole answer is there to read")
        next(items)
        start = time.monotonic()
        items.close()
        assert time.monotonic() - start < patient(5)
        *tokens, _ = worker.generate(request(ids, 24))
        assert [i for t in tokens for i in t.ids] == wanted  # type: ignore[union-attr]
    finally:
        worker.close()


def test_one_answer_at_a_time(tiny_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    gemma = assistant(tiny_bundle, "npu")
    first = gemma.generate((2, 5, 9), max_tokens=24, temperature=0)
    assert not gemma.model.busy  # nothing is run before the first piece is asked for
    pieces = gemma.model._pieces((2, 5, 9), 24, Sampling(0.0), False, Stop(), [], None)
    with gemma.model._turns.turn(False, Stop()), pytest.raises(UsageError, match="one at a time"):
        gemma.generate([2, 5])
    list(first)
    assert first.answer is not None
    assert first.answer.new_tokens == 24
    assert list(pieces) == []
    assert gemma.last is not None
    assert gemma.last.new_tokens == 24
    with pytest.raises(UsageError):
        gemma.generate([2, 5], max_tokens=0)


def test_close_may_be_called_twice_and_an_assistant_opens_again(
    tiny_bundle: Path, assistant: Callable[..., Assistant]
) -> None:
    gemma = assistant(tiny_bundle, "npu")
    gemma.close()
    gemma.close()
    assert gemma.worker_pid is None
