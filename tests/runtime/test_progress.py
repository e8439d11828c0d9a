"""Progress, not constants: what moves is waited for, what was stopped or is slow to listen is not a hang."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from runtimekit import patient, source, wait_until

from rk_gemma_runtime import wire
from rk_gemma_runtime.engines.cpu import batch_for
from rk_gemma_runtime.errors import WorkerHung
from rk_gemma_runtime.events import Progress
from rk_gemma_runtime.jobs import Request, Sampling
from rk_gemma_runtime.options import Limits
from rk_gemma_runtime.supervisor import Backend
from rk_gemma_runtime.supervisor.channel import Channel
from rk_gemma_runtime.supervisor.process import Process
from rk_gemma_runtime.supervisor.silence import Silence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rk_gemma_runtime.assistant import Assistant

pytestmark = pytest.mark.board

SLOW = 60_000  # microseconds a token
SHORT = patient(1.5)  # a busy machine keeps a token for half a second
MIB = 1 << 20
STEPS = 24


@pytest.fixture
def numbers(golden: dict[str, Any]) -> tuple[tuple[int, ...], list[int]]:
    tiny = golden["tiny-gemma2"]
    return tuple(tiny["prompt_6"].tolist()), tiny["greedy_6"].tolist()


@pytest.fixture
def worker(
    tiny_bundle: Path, simulator: Callable[[str], Path], profile: Callable[..., Path]
) -> Iterator[Callable[..., Backend]]:
    made: list[Backend] = []

    def make(layout: str = "1.3.0", limits: Limits | None = None, **keys: object) -> Backend:
        profile(**keys)
        what = source("npu", tiny_bundle / "model.sim", 128, 1, str(simulator(layout)))
        made.append(Backend(what, limits or Limits(token_s=SHORT)))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def answer(backend: Backend, ids: tuple[int, ...], pause_s: float = 0.0) -> list[int]:
    got: list[int] = []
    for item in backend.generate(Request(ids, 24, (1,), Sampling(0.0))):
        if isinstance(item, wire.Tokens):
            got += item.ids
            time.sleep(pause_s if len(got) < 4 else 0)
    return got


def test_a_slow_consumer_is_not_a_hang(worker: Callable[..., Backend], numbers: Any) -> None:
    backend = worker(token_delay_us=SLOW // 10)
    assert answer(backend, numbers[0], pause_s=2 * SHORT) == numbers[1]


def test_a_worker_that_somebody_stopped_is_waited_for(worker: Callable[..., Backend], numbers: Any) -> None:
    backend = worker(token_delay_us=SLOW)
    process = psutil.Process(backend.pid)
    got: list[int] = []
    stopped, waker = 0.0, None
    for item in backend.generate(Request(numbers[0], 24, (1,), Sampling(0.0))):
        if isinstance(item, wire.Tokens):
            got += item.ids
            if not stopped:
                process.suspend()
                wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "the worker is stopped")
                stopped = time.monotonic()
                waker = subprocess.Popen(["/bin/sh", "-c", f"sleep {3 * SHORT}; kill -CONT {backend.pid}"])
    assert waker is not None
    waker.wait()
    assert got == numbers[1]
    assert time.monotonic() - stopped > 3 * SHORT


STOPPABLE = """
import sys
from rk_gemma_runtime import Limits, Model
limits = Limits(token_s=float(sys.argv[3]))
with Model.open(sys.argv[1], backend="npu", librkllmrt=sys.argv[2], limits=limits) as model:
    reply = model.answer([int(i) for i in sys.argv[4].split(",")], max_tokens=24)
    print("begins", flush=True)
    list(reply)
    print(*reply.answer.ids, reply.answer.finish_reason, flush=True)
"""


def test_a_program_that_was_stopped_goes_on(
    tiny_bundle: Path, simulator: Callable[[str], Path], profile: Callable[..., Path], numbers: Any, cli_paths: Any
) -> None:
    """Ctrl-Z, for longer than a worker may be silent; the worker is in a session of its own and is not stopped."""
    profile(token_delay_us=SLOW)
    ids = ",".join(map(str, numbers[0]))
    command = [sys.executable, "-c", STOPPABLE, str(tiny_bundle), str(simulator("1.3.0")), str(SHORT), ids]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=cli_paths, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begins\n"
        child.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 3 * SHORT
        wait_until(lambda: time.monotonic() > until, "time passes")
        child.send_signal(signal.SIGCONT)
        said = child.stdout.read().split()
    assert child.returncode == 0
    assert len(said) == 25
    assert said[-1] == "length"


def test_a_reload_in_a_job_has_the_patience_of_a_load(worker: Callable[..., Backend], numbers: Any) -> None:
    limits = Limits(load_s=patient(20), first_token_s=SHORT, prompt_token_s=0, token_s=SHORT)
    backend = worker("1.1.0", limits)
    worker_profile_delay = 1000 * 3 * SHORT
    Path(psutil.Process(backend.pid).environ()["RK_GEMMA_SIM_PROFILE"]).write_text(
        f"simulator:\n  init_delay_ms: {worker_profile_delay:.0f}\n"
    )
    *tokens, finish = backend.generate(Request(numbers[0], 24, (1,), Sampling(0.0)))
    assert [i for t in tokens for i in t.ids] == numbers[1]  # type: ignore[union-attr]
    assert finish.reload_s > 2 * SHORT  # type: ignore[union-attr]


IN_ONE_PROCESS = """
import sys
from rk_gemma_runtime.engines.cpu import CpuEngine
from rk_gemma_runtime.jobs import Request, Sampling, Setup
from rk_gemma_runtime.stop import Stop
engine, stop, told = CpuEngine(Setup(sys.argv[1], 1024, 1, sys.argv[2])), Stop(), []
def on_progress(done, total):
    told.append((done, total))
    if done:
        stop.wish()
prompt = (2, *((7 * i) % 900 + 200 for i in range(899)))
finish = engine.generate(Request(prompt, 8, (), Sampling(0.0)), print, on_progress, stop)
print(finish.reason, finish.new_tokens, told)
finish = engine.generate(Request((2, 5, 7), 8, (), Sampling(0.0)), lambda token: None, on_progress, Stop())
print(finish.reason, finish.new_tokens)
"""


def test_the_cpu_tells_how_much_of_a_prompt_it_has_read_and_hears_an_abort_within_a_batch(
    demo_bundle: Path, scratch: Path, cli_paths: Any
) -> None:
    """In one process, so that the wish comes between two batches and not when a socket has room."""
    command = [sys.executable, "-c", IN_ONE_PROCESS, str(demo_bundle / "model.gguf"), str(scratch / "s")]
    done = subprocess.run(command, capture_output=True, text=True, env=cli_paths, check=True)
    assert done.stdout.splitlines() == ["abort 0 [(0, 900), (512, 900)]", "length 8"]


@pytest.mark.parametrize(("size", "tokens"), [(10 << 20, 512), (540 << 20, 512), (1 << 30, 256), (3 << 30, 128)])
def test_the_larger_the_model_the_smaller_a_batch(size: int, tokens: int) -> None:
    """So that an abort is heard about as soon."""
    assert batch_for(size) == tokens


def test_a_prompt_on_the_cpu_is_told_of_up_to_its_end(demo_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    heard: list[Progress] = []
    gemma = assistant(demo_bundle, "cpu", on_event=lambda e: heard.append(e) if isinstance(e, Progress) else None)
    heard.clear()
    reply = gemma.generate([2, *((7 * i) % 900 + 200 for i in range(499))], max_tokens=2, temperature=0)
    list(reply)
    assert [e.done for e in heard] == sorted({e.done for e in heard})
    assert {(e.what, e.total, e.estimated) for e in heard} == {("prompt", 500, False)}
    assert heard[-1].done == 500


@pytest.fixture(scope="module")
def slow_reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc; apt-get install gcc")
    library = tmp_path_factory.mktemp("slow") / "slowread.so"
    code = Path(__file__).with_name("slowread.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", str(code), "-o", str(library), "-ldl"], check=True)
    return library


@pytest.fixture
def large_file(tiny_bundle: Path, tmp_path: Path) -> Path:
    """CPU weights with a long tail, which llama.cpp does not look at."""
    path = tmp_path / "large.gguf"
    shutil.copy(tiny_bundle / "model.gguf", path)
    with path.open("r+b") as file:
        file.truncate(STEPS * MIB)
    return path


def slowly(slow_reading: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setenv("LD_PRELOAD", str(slow_reading))
    monkeypatch.setenv("SLOW_READ_US", str(int(seconds / STEPS * 1e6)))


def test_a_load_that_reads_is_waited_for_and_one_that_does_not_is_a_hang(
    slow_reading: Path, large_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(slow_reading, monkeypatch, patient(6))
    limits = Limits(load_s=patient(2), load_bytes_s=1e12)
    heard: list[Progress] = []
    began = time.monotonic()
    Backend(source("cpu", large_file), limits, on_event=heard.append).close()
    assert time.monotonic() - began > patient(4)
    done = [event.done for event in heard]
    assert len(done) > 3
    assert done == sorted(set(done))
    assert {(event.what, event.total) for event in heard} == {("load", STEPS * MIB)}
    monkeypatch.setenv("SLOW_READ_US", str(int(patient(60) * 1e6)))
    with pytest.raises(WorkerHung, match="its engine makes no progress"):
        Backend(source("cpu", large_file), limits)


def test_a_worker_answers_pings_while_it_loads(
    slow_reading: Path, large_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from dataclasses import replace

    slowly(slow_reading, monkeypatch, patient(4))
    process = Process(needs_scratch=True)
    try:
        channel = Channel(process.socket)
        setup = replace(source("cpu", large_file).setup, scratch=str(process.scratch))
        channel.send(wire.Load("cpu", setup))
        channel.send(wire.Ping(7))
        seen = []
        for message in channel.messages(Silence(patient(30))):
            seen.append(type(message))
            if isinstance(message, wire.Loaded):
                break
        assert seen.index(wire.Pong) < seen.index(wire.Loaded)
        assert wire.Progress in seen[seen.index(wire.Pong) :]
    finally:
        process.close()
