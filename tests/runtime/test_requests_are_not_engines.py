"""A request that fails is not an engine that fails: one bad prompt, an old breakdown and a refusal that has passed do
not keep others from the NPU."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from answerkit import FOR_EVER_MS, kill_idle, no_workers
from hostile.kit import builder
from runtimekit import patient, wait_until

import rk_gemma_runtime as rk
from rk_gemma_runtime import Bundle, Limits, Message
from rk_gemma_runtime.chat import Conversation, Tokenizer
from rk_gemma_runtime.errors import NpuError, NpuReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rk_gemma_runtime import Assistant

pytestmark = pytest.mark.board

REFUSED, GOOD = [2, 13, 5], [2, 5, 9]
OF_HOSTILE = (7,) * 5
RETRY_S = 0.3
NEVER = Limits(retry_s=0)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    return builder(tmp_path_factory.getbasetemp() / "hostile")


@pytest.fixture
def picky(
    hostile: Callable[..., Path],
    tiny_bundle: Path,
    assistant: Callable[..., Assistant],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Assistant]:
    """picky(backend, option=value ...): its NPU refuses REFUSED and answers OF_HOSTILE to all else."""
    monkeypatch.setenv("HOSTILE", f"prompt:{REFUSED[1]}")
    return lambda backend, **rest: assistant(tiny_bundle, backend, librkllmrt=str(hostile()), **rest)


@pytest.fixture
def golden_6(golden: dict[str, Any]) -> tuple[list[int], tuple[int, ...]]:
    """A prompt of the tiny model and its greedy answer."""
    tiny = golden["tiny-gemma2"]
    return tiny["prompt_6"].tolist(), tuple(tiny["greedy_6"].tolist())


def ask(gemma: Assistant, ids: list[int], most: int = 24) -> Any:
    """The answer."""
    list(gemma.generate(ids, max_tokens=most, temperature=0))
    assert gemma.last is not None
    return gemma.last


def later(seconds: float) -> Callable[[], bool]:
    """A moment to wait for."""
    end = time.monotonic() + patient(seconds)
    return lambda: time.monotonic() > end


@pytest.mark.parametrize("together", [False, True])
def test_a_prompt_that_the_npu_refuses_is_no_breakdown(together: bool, picky: Callable[..., Assistant]) -> None:
    gemma = picky("auto", limits=NEVER)
    for _ in range(Limits().breakdowns + 2):
        refused = ask(gemma, REFUSED, 3)
        assert (refused.backend, refused.new_tokens) == ("cpu", 3)
        assert refused.degraded.cause == NpuReason.RUN_FAILED.value
        if not together:
            good = ask(gemma, GOOD)
            assert (good.backend, good.ids, good.degraded) == ("npu", OF_HOSTILE, None)
    assert (ask(gemma, GOOD).backend, gemma.backend, gemma.degraded) == ("npu", "npu", None)


def test_asked_for_the_npu_only_the_worker_stays(picky: Callable[..., Assistant]) -> None:
    gemma = picky("npu")
    pid = gemma.worker_pid
    for _ in range(Limits().breakdowns + 2):
        with pytest.raises(NpuError) as caught:
            ask(gemma, REFUSED)
        assert caught.value.reason is NpuReason.RUN_FAILED
    assert ask(gemma, GOOD).ids == OF_HOSTILE
    assert gemma.worker_pid == pid


def test_a_library_that_refuses_the_first_prompt_of_every_worker_is_asked_twice(
    tiny_bundle: Path, assistant: Callable[..., Assistant], profile: Any, golden_6: Any
) -> None:
    profile(error_at_token=1)
    gemma = assistant(tiny_bundle, "auto", limits=NEVER)
    for _ in range(Limits().breakdowns + 1):
        for answer in ask(gemma, golden_6[0]), ask(gemma, golden_6[0]):
            assert (answer.backend, answer.ids, answer.degraded) == ("npu", golden_6[1], None)
        assert gemma.worker_pid is not None
        kill_idle(gemma.worker_pid)  # costs a worker, and no answer


def test_breakdowns_count_while_they_are_young(
    tiny_bundle: Path, assistant: Callable[..., Assistant], profile: Any
) -> None:
    profile(crash_at_token=1)
    gemma = assistant(tiny_bundle, "auto", limits=NEVER)
    for _ in range(Limits().breakdowns):
        assert ask(gemma, GOOD, 3).degraded is not None
    profile()
    left_alone = ask(gemma, GOOD, 3)
    assert (left_alone.backend, left_alone.degraded.retry_at) == ("cpu", None)
    gemma.prefer("auto")
    assert ask(gemma, GOOD, 3).backend == "npu"


def test_old_breakdowns_are_forgotten(
    tiny_bundle: Path, assistant: Callable[..., Assistant], profile: Any, golden_6: Any
) -> None:
    profile(crash_at_token=4)
    gemma = assistant(tiny_bundle, "auto", limits=Limits(retry_s=0, breakdowns=2, breakdown_s=patient(0.4)))
    for _ in range(3):
        answer = ask(gemma, golden_6[0])
        assert (answer.backend, answer.ids) == ("cpu", golden_6[1])
        wait_until(later(0.5), "it is forgotten")
    profile()
    assert (ask(gemma, golden_6[0]).backend, gemma.degraded) == ("npu", None)


@pytest.fixture
def refused(
    tiny_bundle: Path, simulator: Callable[[str], Path], profile: Any
) -> Iterator[Callable[..., tuple[Assistant, list[Any]]]]:
    """refused(limit=value ...): in auto on an NPU that refuses, and the list of its events."""
    profile(init="iova")
    with ExitStack() as stack:

        def make(**limits: float) -> tuple[Assistant, list[Any]]:
            heard: list[Any] = []
            given = Limits(**{"retry_s": patient(RETRY_S), "retry_most_s": patient(4 * RETRY_S), **limits})  # type: ignore[arg-type]
            options = rk.Options("auto", str(simulator("1.3.0")), threads=1, limits=given)
            gemma = rk.Assistant.open(tiny_bundle, options, on_event=heard.append)
            stack.callback(gemma.close)
            return gemma, heard

        yield make
    wait_until(no_workers, "no worker is left")


def recovered(heard: list[Any]) -> bool:
    return any(isinstance(event, rk.Recovered) for event in heard)


def test_a_refused_load_is_tried_again(refused: Any, profile: Any, golden_6: Any) -> None:
    before = time.time()
    gemma, heard = refused()
    assert isinstance(heard[-1], rk.Degraded)
    assert before < gemma.degraded.retry_at < time.time() + 2 * patient(RETRY_S)
    answer = ask(gemma, golden_6[0])
    assert (answer.backend, answer.ids, answer.degraded.cause) == ("cpu", golden_6[1], NpuReason.IOVA_EXHAUSTED.value)
    profile()
    wait_until(lambda: recovered(heard), "the NPU has loaded")
    answer = ask(gemma, golden_6[0])
    assert (answer.backend, answer.ids, answer.degraded, gemma.degraded) == ("npu", golden_6[1], None, None)
    wait_until(lambda: len(psutil.Process().children()) == 1, "the CPU's worker has left")


def test_it_says_when_the_next_try_is_and_waits_longer_each_time(refused: Any) -> None:
    gemma, heard = refused()
    times = [gemma.degraded.retry_at]
    while len(times) < 4:
        wait_until(lambda: gemma.degraded.retry_at > times[-1], "the next try has a time")
        assert gemma.degraded.retry_at > time.time() - patient(RETRY_S)
        times.append(gemma.degraded.retry_at)
    assert times[2] - times[1] > 1.2 * (times[1] - times[0])
    assert not recovered(heard)


def test_an_answer_in_progress_is_not_disturbed_by_a_recovery(refused: Any, profile: Any, golden_6: Any) -> None:
    gemma, heard = refused()
    profile(init_delay_ms=50)
    while not recovered(heard):
        answer = ask(gemma, golden_6[0])
        assert (answer.ids, answer.finish_reason) == (golden_6[1], "length")
    assert ask(gemma, golden_6[0]).backend == "npu"


def test_what_another_try_cannot_change_is_not_tried_again(tiny_bundle: Path, assistant: Any, refused: Any) -> None:
    with assistant(tiny_bundle, "auto", librkllmrt="/nonexistent/librkllmrt.so") as gemma:
        assert gemma.degraded.retry_at is None
    assert refused(retry_s=0)[0].degraded.retry_at is None


def test_preferring_the_cpu_ends_the_tries(refused: Any, profile: Any) -> None:
    gemma, heard = refused()
    gemma.prefer("cpu")
    profile()
    wait_until(later(3 * RETRY_S), "a try would have been made")
    assert not recovered(heard)
    assert len(psutil.Process().children()) == 1
    assert ask(gemma, GOOD, 3).backend == "cpu"


@pytest.mark.parametrize("how", ["close", "prefer"])
def test_a_try_in_progress_is_given_up(how: str, refused: Any, profile: Any) -> None:
    gemma, _ = refused()
    profile(init_delay_ms=FOR_EVER_MS)
    wait_until(lambda: len(psutil.Process().children()) == 2, "the NPU is being loaded beside the CPU")
    start = time.monotonic()
    if how == "prefer":
        gemma.prefer("cpu")
        wait_until(lambda: len(psutil.Process().children()) == 1, "that worker has left")
        assert ask(gemma, GOOD, 3).backend == "cpu"
    else:
        gemma.close()
        wait_until(no_workers, "both have left")
    assert time.monotonic() - start < patient(4)


def conversation(exchanges: int) -> Any:
    made = Conversation()
    for n in range(exchanges):
        made.history += [Message("user", f"What is errno {n}?"), Message("assistant", f"Errno {n} is bad.")]
    return made


def seconds(exchanges: int, tokenizer: Any) -> float:
    """Of the first prompt of such a conversation, which has to leave out most of it."""
    took = []
    for _ in range(3):
        given = conversation(exchanges)
        start = time.perf_counter()
        ids = given.prompt("And now?", tokenizer, 1024, 256)
        took.append(time.perf_counter() - start)
        assert 256 < len(ids) <= 768
    return min(took)


def test_leaving_out_old_turns_takes_time_in_proportion(demo_bundle: Path) -> None:
    path = Bundle.open(demo_bundle).tokenizer_file
    assert path is not None
    tokenizer = Tokenizer.open(path)
    few, many = seconds(500, tokenizer), seconds(2000, tokenizer)
    assert many < 8 * max(few, 0.02)
    assert many < patient(0.8)
    given = conversation(2000)
    first = given.prompt("And now?", tokenizer, 1024, 256)
    assert given.just_forgot
    start = time.perf_counter()
    assert given.prompt("And now?", tokenizer, 1024, 256) == first
    assert time.perf_counter() - start < patient(0.2)
    assert not given.just_forgot
