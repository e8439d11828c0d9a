"""What comes at a bad moment: a signal's handler, a fork, a cancel before anything was sent, a reset in an answer."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from answerkit import FIRST, SECOND, SLOW, THIRD, Wanted, ask, begin
from runtimekit import patient, wait_until

import rk_gemma_runtime as rk
from rk_gemma_runtime import AsyncAssistant, Limits, Message, Model, NoBackendError, NpuError
from rk_gemma_runtime.chat import Conversation, Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.board

Opened = Any  # the fixture `opened`


@pytest.mark.parametrize("deed", ["close", "abort"])
def test_a_signals_handler_ends_what_its_own_thread_waits_for(deed: str, opened: Opened, profile: Any) -> None:
    profile(token_delay_us=300_000)
    gemma = opened()
    before = signal.signal(signal.SIGALRM, lambda *_: getattr(gemma, deed)())
    try:
        signal.setitimer(signal.ITIMER_REAL, patient(0.4))
        reply = begin(gemma, FIRST)
        list(reply)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert reply.answer.finish_reason == "abort"


def test_a_cancel_before_anything_was_sent_runs_nothing(opened: Opened) -> None:
    gemma = opened()

    def ids() -> list[int]:
        reply.cancel()
        return [2, 5, 7]

    reply = gemma.model.answer(ids, max_tokens=30)
    assert list(reply) == []
    assert (reply.answer.finish_reason, reply.answer.ids) == ("abort", ())


def test_a_fork_after_a_refused_npu_leaves_a_childs_own_files_alone(
    tiny_bundle: Path, simulator: Callable[[str], Path], profile: Any
) -> None:
    profile(init="iova")
    with pytest.raises(NpuError) as caught:  # which keeps what failed alive
        Model.open(tiny_bundle, backend="npu", librkllmrt=str(simulator("1.3.0")))
    files = [open(os.devnull) for _ in range(8)]
    pid = os.fork()
    if pid == 0:
        try:
            for file in files:
                os.fstat(file.fileno())
            os._exit(0)
        except OSError:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert caught.value.reason == "npu_malloc_iova_exhausted"
    for file in files:
        file.close()


def refusing(bundle: Path, library: Path, heard: list[object], **options: Any) -> Model:
    limits = Limits(retry_s=patient(0.4), retry_most_s=patient(0.4))
    choice = {"backend": "auto", "librkllmrt": str(library), "threads": 1, "limits": limits, **options}
    return Model.open(bundle, on_event=heard.append, **choice)


def recovered(heard: list[object]) -> bool:
    return any(isinstance(event, rk.Recovered) for event in heard)


def test_without_cpu_weights_a_refused_npu_is_asked_again(
    make_bundle: Any, simulator: Callable[[str], Path], profile: Any, tiny_bundle: Path
) -> None:
    only = make_bundle(rk_checkpoint(), dtype="fp16", cpu="none")
    profile(init="iova")
    model = Model(rk.Bundle.open(only), rk.Options(librkllmrt=str(simulator("1.3.0"))), load=False)
    with model:
        for _ in range(2):
            with pytest.raises(NoBackendError, match="failed to malloc npu memory"):
                list(model.answer([2, 5], max_tokens=2))
        profile()
        reply = model.answer([2, 5], max_tokens=2)
        list(reply)
        assert reply.answer is not None
        assert reply.answer.backend == "npu"


def rk_checkpoint() -> Path:
    from runtimekit import DATA

    return DATA / "tiny-gemma2"


def test_an_npu_that_recovered_and_died_is_loaded_by_the_next_answer(
    tiny_bundle: Path, simulator: Callable[[str], Path], profile: Any
) -> None:
    profile(init="iova")
    heard: list[object] = []
    with refusing(tiny_bundle, simulator("1.3.0"), heard) as model:
        cpu = model.worker_pid
        profile()
        wait_until(lambda: recovered(heard), "the NPU has loaded")
        (standby,) = (p for p in psutil.Process().children() if p.pid != cpu)
        standby.kill()
        wait_until(lambda: standby.status() == psutil.STATUS_ZOMBIE, "it is dead")
        reply = model.answer([2, 5], max_tokens=2)
        list(reply)
        assert reply.answer is not None
        assert (reply.answer.backend, model.degraded) == ("npu", None)


def test_a_model_may_be_closed_by_the_event_of_its_recovery(
    tiny_bundle: Path, simulator: Callable[[str], Path], profile: Any
) -> None:
    profile(init="iova")
    heard: list[object] = []

    class Closer(list[object]):
        def append(self, event: object) -> None:
            heard.append(event)
            if isinstance(event, rk.Recovered):
                model.close()

    model = refusing(tiny_bundle, simulator("1.3.0"), Closer())
    profile()
    wait_until(lambda: recovered(heard) and not psutil.Process().children(), "both workers have left")
    model.close()


def test_an_interrupted_prefer_leaves_the_preference(
    opened: Opened, profile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gemma = opened("cpu")
    profile(init_delay_ms=600_000)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, patient(0.4))
        with pytest.raises(KeyboardInterrupt):
            gemma.prefer("npu")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert gemma.model._backends.preference == "cpu"
    assert len(ask(gemma, FIRST)) > 2


def test_an_answer_from_before_a_reset_is_not_remembered(opened: Opened, profile: Any) -> None:
    profile(token_delay_us=SLOW)
    gemma = opened()
    reply = gemma.chat("a secret question", temperature=0)
    next(reply)
    gemma.reset("Be brief.")
    reply.close()
    assert gemma.history == [Message("system", "Be brief.")]


def test_a_history_that_is_set_is_sent_whole_whatever_was_left_out_before(demo_bundle: Path) -> None:
    tokenizer = Tokenizer.open(demo_bundle / "tokenizer.model")
    talk = Conversation()
    talk.history = [m for n in range(9) for m in (Message("user", f"{n} " * 30), Message("assistant", "Yes."))]
    talk.prompt("And now?", tokenizer, 256, 64)
    assert talk.just_forgot
    talk.history = [Message("user", "My name is Bob."), Message("assistant", "Hi Bob.")]
    fresh = Conversation()
    fresh.history = list(talk.history)
    question = "What is my name?"
    assert talk.prompt(question, tokenizer, 256, 64) == fresh.prompt(question, tokenizer, 256, 64)
    assert not talk.just_forgot


def test_breaking_off_and_asking_at_once(
    twin_bundle: Path, simulator: Callable[[str], Path], profile: Any, wanted: Wanted
) -> None:
    profile(token_delay_us=SLOW)

    async def work() -> None:
        options: Any = {"backend": "npu", "librkllmrt": str(simulator("1.3.0"))}
        async with AsyncAssistant.open(str(twin_bundle), **options) as gemma:
            for wait in (True, False):
                async for _ in begin(gemma, FIRST):
                    break
                reply = begin(gemma, SECOND, wait=wait)
                _ = [piece async for piece in reply]
                assert reply.answer.ids == wanted[SECOND]
            async for _ in begin(gemma, FIRST):
                break
            await gemma.prefer("npu")

    asyncio.run(asyncio.wait_for(work(), patient(40)))


def test_who_waits_behind_an_answer_that_is_not_iterated_hears_of_close(
    twin_bundle: Path, simulator: Callable[[str], Path], profile: Any
) -> None:
    profile(token_delay_us=SLOW)

    async def work() -> None:
        options: Any = {"backend": "npu", "librkllmrt": str(simulator("1.3.0"))}
        gemma = await AsyncAssistant.open(str(twin_bundle), **options)
        held = begin(gemma, FIRST)
        await anext(held)

        async def other() -> None:
            _ = [piece async for piece in begin(gemma, THIRD)]

        waiting = asyncio.create_task(other())
        await asyncio.sleep(0)
        await gemma.close()
        with pytest.raises(rk.UsageError, match="closed"):
            await asyncio.wait_for(waiting, patient(5))
        _ = [piece async for piece in held]
        assert held.answer.finish_reason == "abort"

    asyncio.run(asyncio.wait_for(work(), patient(40)))


def test_what_is_not_a_number_is_refused_at_the_call(opened: Opened) -> None:
    import numpy as np

    gemma = opened("cpu")
    for wrong in ({"max_tokens": "5"}, {"max_tokens": 2.5}, {"temperature": float("nan")}):
        with pytest.raises(rk.UsageError):
            gemma.generate([2, 5], **wrong)
    with pytest.raises(rk.UsageError):
        gemma.generate([2, 5], sampling=rk.Sampling(top_k="a"))  # type: ignore[arg-type]
    with pytest.raises(rk.UsageError):
        gemma.generate([2, 5.5])
    reply = gemma.generate(np.array([2, 5, 7]), max_tokens=np.int64(2), temperature=0)
    start = time.monotonic()
    list(reply)
    assert reply.answer.new_tokens == 2
    assert time.monotonic() - start < patient(20)
