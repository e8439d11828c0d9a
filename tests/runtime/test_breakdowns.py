"""The NPU breaks in the middle of an answer: the CPU goes on with the same words; the next answer is the NPU's."""

from __future__ import annotations

import functools
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from runtimekit import alive, patient, scratch_left

from rk_gemma_runtime.errors import NpuError, NpuReason, WorkerDied, WorkerHung
from rk_gemma_runtime.options import Limits
from rk_gemma_runtime.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma_runtime.answer import Degraded
    from rk_gemma_runtime.assistant import Assistant

pytestmark = pytest.mark.board

# Two seconds, because the CPU engine must not seem to hang on a busy machine.
IMPATIENT = Limits(token_s=patient(2), first_token_s=patient(5), prompt_token_s=0)
BREAKS = {"crash_at_token": "segfault", "hang_at_token": "hang", "error_at_token": "npu_run_failed"}
ERRORS = {"crash_at_token": WorkerDied, "hang_at_token": WorkerHung, "error_at_token": NpuError}


@pytest.fixture
def numbers(golden: dict[str, Any]) -> tuple[list[int], list[int]]:
    """A prompt whose greedy answer changes its mind, so that a lost or doubled token shows."""
    tiny = golden["tiny-gemma2"]
    return tiny["prompt_6"].tolist(), tiny["greedy_6"].tolist()


@pytest.mark.parametrize(
    ("key", "token", "layout"),
    [
        ("crash_at_token", 1, "1.3.0"),
        ("crash_at_token", 4, "1.3.0"),
        ("crash_at_token", 24, "1.3.0"),
        ("crash_at_token", 16, "1.1.0"),
        ("hang_at_token", 4, "1.3.0"),
        ("error_at_token", 4, "1.3.0"),
        ("error_at_token", 16, "1.1.0"),
    ],
)
def test_in_auto_the_answer_is_the_undisturbed_one(
    key: str,
    token: int,
    layout: str,
    tiny_bundle: Path,
    assistant: Callable[..., Assistant],
    profile: Callable[..., Path],
    numbers: tuple[list[int], list[int]],
    scratch: Path,
) -> None:
    profile(**{key: token})
    heard: list[Degraded] = []
    gemma = assistant(tiny_bundle, "auto", layout, limits=IMPATIENT, on_notice=heard.append)
    assert gemma.backend == "npu"
    list(gemma.generate(numbers[0], max_tokens=24, temperature=0))
    answer = gemma.last
    assert answer is not None
    assert list(answer.ids) == numbers[1]
    assert (answer.backend, answer.finish_reason, answer.new_tokens) == ("cpu", "length", 24)
    assert answer.prompt_tokens == len(numbers[0])
    # Tokens that were on their way when it broke may be lost, and are the CPU's then.
    made = dict(answer.made_by)
    assert list(made) in (["npu", "cpu"], ["cpu"]) and sum(made.values()) == 24 and made.get("npu", 0) < token
    assert answer.degraded is not None
    assert answer.degraded.cause == BREAKS[key]
    assert heard == [answer.degraded]
    gemma.close()
    assert scratch_left(scratch) == []


@pytest.mark.parametrize("key", BREAKS)
def test_asked_for_the_npu_only_it_is_an_error_and_the_next_answer_is_right(
    key: str,
    tiny_bundle: Path,
    assistant: Callable[..., Assistant],
    profile: Callable[..., Path],
    numbers: tuple[list[int], list[int]],
) -> None:
    profile(**{key: 4}, token_delay_us=10_000)  # tokens of one burst travel together, and would be lost together
    gemma = assistant(tiny_bundle, "npu", limits=IMPATIENT)
    worker = gemma.worker_pid
    got = gemma.generate(numbers[0], max_tokens=24, temperature=0)
    with pytest.raises(ERRORS[key]) as caught:
        list(got)
    assert "\n" not in str(caught.value)
    if isinstance(caught.value, NpuError):
        assert caught.value.reason is NpuReason.RUN_FAILED
        assert any("run failed" in line for line in caught.value.lines)
    assert gemma.last is not None
    assert list(gemma.last.ids) == numbers[1][:3]
    assert worker is not None
    assert key == "error_at_token" or not alive(worker)
    profile()
    list(gemma.generate(numbers[0], max_tokens=24, temperature=0))
    assert list(gemma.last.ids) == numbers[1]


def test_the_next_answer_is_the_npus_again(
    tiny_bundle: Path,
    assistant: Callable[..., Assistant],
    profile: Callable[..., Path],
    numbers: tuple[list[int], list[int]],
) -> None:
    profile(crash_at_token=4)
    gemma = assistant(tiny_bundle, "auto", limits=IMPATIENT)
    list(gemma.generate(numbers[0], max_tokens=24, temperature=0))
    profile()
    list(gemma.generate(numbers[0], max_tokens=24, temperature=0))
    assert gemma.last is not None
    assert (gemma.last.backend, gemma.last.degraded) == ("npu", None)
    assert list(gemma.last.ids) == numbers[1]


def test_an_npu_that_breaks_every_time_is_left_alone_and_every_answer_says_so(
    tiny_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    profile(crash_at_token=1)
    gemma = assistant(tiny_bundle, "auto", limits=IMPATIENT)
    for _ in range(Limits().breakdowns + 2):
        list(gemma.generate([2, 5, 9], max_tokens=3, temperature=0))
        assert gemma.last is not None
        assert gemma.last.backend == "cpu"
        assert gemma.last.degraded is not None
        assert gemma.last.degraded.cause == "segfault"


def test_a_worker_that_is_killed_costs_one_worker(
    tiny_bundle: Path,
    assistant: Callable[..., Assistant],
    profile: Callable[..., Path],
    numbers: tuple[list[int], list[int]],
) -> None:
    profile(token_delay_us=20_000)
    gemma = assistant(tiny_bundle, "auto")
    # Who sends SIGKILL is mostly the kernel.
    segfault = functools.partial(psutil.Process.send_signal, sig=signal.SIGSEGV)
    for stop, cause in ((psutil.Process.kill, "oom_killed"), (segfault, "segfault")):
        for count, _ in enumerate(gemma.model._backends.generate(_request(gemma, numbers[0]), Stop())):
            if count == 3:
                stop(psutil.Process(gemma.worker_pid))
        assert gemma.backend == "cpu"
        assert gemma.degraded is not None
        assert gemma.degraded.cause == cause
    list(gemma.generate(numbers[0], max_tokens=24, temperature=0))
    assert gemma.last is not None
    assert (gemma.last.backend, list(gemma.last.ids)) == ("npu", numbers[1])


def _request(gemma: Assistant, ids: list[int]) -> Any:
    from rk_gemma_runtime.jobs import Request, Sampling

    return Request(tuple(ids), 24, gemma.bundle.manifest.eos, Sampling(0.0))


def test_a_hang_while_loading_is_ended(
    tiny_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    profile(init="hang")
    gemma = assistant(tiny_bundle, "auto", limits=Limits(load_s=patient(3)))
    assert gemma.backend == "cpu"
    assert gemma.degraded is not None
    assert gemma.degraded.cause == "hang"
    with pytest.raises(WorkerHung):
        assistant(tiny_bundle, "npu", limits=Limits(load_s=patient(1)))
    me = psutil.Process()
    assert [p.pid for p in me.children(recursive=True)] == [gemma.worker_pid]
