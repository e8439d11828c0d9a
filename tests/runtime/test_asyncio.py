"""The asyncio twin: streaming, cancelling, closing; the loop never blocks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psutil
import pytest
from runtimekit import patient

from rk_gemma_runtime import AsyncAssistant
from rk_gemma_runtime.errors import BundleError, PromptError, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.board


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, patient(30)))


def test_it_streams_and_the_loop_goes_on(
    demo_bundle: Path, simulator: Callable[[str], Path], profile: Callable[..., Path]
) -> None:
    profile(token_delay_us=20_000)

    async def work() -> None:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.005)
                beats += 1

        heart = asyncio.create_task(beat())
        async with await AsyncAssistant.open(
            str(demo_bundle), backend="npu", librkllmrt=str(simulator("1.3.0"))
        ) as gemma:
            before = beats
            pieces = [piece async for piece in gemma.chat("Hi", max_tokens=12, temperature=0)]
            assert beats > before
            assert gemma.last is not None
            assert "".join(pieces) == gemma.last.text
            assert gemma.backend == "npu"
            await gemma.reset()
        heart.cancel()

    run(work())
    assert psutil.Process().children() == []


def test_cancelling_the_task_aborts_the_answer(
    demo_bundle: Path,
    simulator: Callable[[str], Path],
    profile: Callable[..., Path],
) -> None:
    profile(token_delay_us=50_000)

    async def work() -> None:
        gemma = await AsyncAssistant.open(str(demo_bundle), backend="npu", librkllmrt=str(simulator("1.3.0")))
        began = asyncio.Event()

        async def listen() -> None:
            async for _ in gemma.chat("Hi", max_tokens=500, temperature=5.0):
                began.set()

        task = asyncio.create_task(listen())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        pid = gemma.sync.worker_pid
        pieces = [piece async for piece in gemma.chat("Hi", max_tokens=4, temperature=0)]
        assert gemma.last is not None
        assert gemma.last.finish_reason in {"length", "stop"}
        assert "".join(pieces) == gemma.last.text
        assert gemma.sync.worker_pid == pid
        await gemma.close()
        await gemma.close()

    run(work())
    assert psutil.Process().children() == []


def test_arrays_are_those_of_the_assistant(tiny_bundle: Path, simulator: Callable[[str], Path]) -> None:
    np = pytest.importorskip("numpy")

    async def work() -> None:
        async with AsyncAssistant.open(str(tiny_bundle), backend="npu", librkllmrt=str(simulator("1.3.0"))) as gemma:
            for name in ("logits", "hidden_states"):
                np.testing.assert_array_equal(
                    await getattr(gemma, name)([2, 5, 7]), getattr(gemma.sync, name)([2, 5, 7])
                )

    run(work())


def test_leaving_the_loop_early_and_closing(
    demo_bundle: Path, simulator: Callable[[str], Path], profile: Callable[..., Path]
) -> None:
    profile(token_delay_us=50_000)

    async def work() -> None:
        async with await AsyncAssistant.open(
            str(demo_bundle), backend="npu", librkllmrt=str(simulator("1.3.0"))
        ) as gemma:
            pieces = gemma.chat("Hi", max_tokens=500, temperature=5.0)
            assert await anext(pieces)
            await pieces.aclose()  # type: ignore[attr-defined]
            assert gemma.last is not None
            assert gemma.last.finish_reason == "abort"

    run(work())
    assert psutil.Process().children() == []


def test_errors_arrive(
    tiny_bundle: Path, tmp_path: Path, simulator: Callable[[str], Path], profile: Callable[..., Path]
) -> None:
    profile(crash_at_token=3)

    async def work() -> None:
        with pytest.raises(BundleError):
            await AsyncAssistant.open(str(tmp_path / "absent"))
        async with await AsyncAssistant.open(
            str(tiny_bundle), backend="npu", librkllmrt=str(simulator("1.3.0"))
        ) as gemma:
            with pytest.raises(PromptError):
                _ = [piece async for piece in gemma.generate([])]
            with pytest.raises(WorkerDied):
                _ = [piece async for piece in gemma.generate([2, 5, 9], max_tokens=9, temperature=0)]

    run(work())
    assert psutil.Process().children() == []
