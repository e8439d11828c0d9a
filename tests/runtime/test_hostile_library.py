"""A library that crashes, throws, leaves, spins, hangs or floods, wherever it can, costs one worker and never
more."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hostile.kit import builder
from runtimekit import one_line, patient, source, wait_until

from rk_gemma_runtime.errors import EngineError, LibraryError, WorkerDied, WorkerHung
from rk_gemma_runtime.jobs import Finish, Request, Sampling
from rk_gemma_runtime.options import Limits
from rk_gemma_runtime.stop import Stop
from rk_gemma_runtime.supervisor import Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runtimekit import Cli

    from rk_gemma_runtime.assistant import Assistant

pytestmark = pytest.mark.board  # it needs what the simulator needs: a compiler

STATUS = {
    "segfault": -signal.SIGSEGV, "exit": 1, "abort": -signal.SIGABRT, "throw": -signal.SIGABRT,
    "kill": -signal.SIGKILL,
}  # fmt: skip
STOPS = ("spin", "hang")
PLACES = ("init", "run", "tokens", "thread", "abort")
FLOODS = ("lines", "one_line")
ANSWER = (7,) * 5  # of a hostile library that is left to answer
ALL = [(place, deed) for place in PLACES for deed in STATUS]
ALL_STOPS = [(place, deed) for place in PLACES for deed in STOPS]
LATE_S = 5.0  # after a death, or after the limit, the error must be there, on a busy machine too
SILENCE_S = 1.0
LOAD_S = 3.0  # the worker has to start first
FLOODED = 10 << 20


class Deeds:
    """What the library shall do in the workers started from now on, and when it did it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._clock, self._set = folder / "clock", monkeypatch.setenv
        self.token = os.urandom(8).hex()
        self._set("HOSTILE_CLOCK", str(self._clock))
        self._set("HOSTILE_TEST", self.token)

    def plan(self, place: str, deed: str) -> None:
        self._set("HOSTILE", f"{place}:{deed}")

    def ago(self) -> float:
        """Seconds since the deed."""
        return time.monotonic() - float(self._clock.read_text())

    def processes(self) -> list[psutil.Process]:
        """Whatever still runs of what this test has started, however far down."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get("HOSTILE_TEST") == self.token:
                    found.append(process)
            except psutil.Error:
                continue
        return found


def some_slow(cases: list[tuple[str, str]], fast: Callable[[str, str], bool]) -> list[Any]:
    """Each costs the start of a worker: the quick run takes those that differ most."""
    return [pytest.param(*c, marks=() if fast(*c) else pytest.mark.slow, id="-".join(c)) for c in cases]


def held() -> tuple[int, int, int]:
    """Descriptors, threads and children, dead ones included, of this process."""
    me = psutil.Process()
    return me.num_fds(), threading.active_count(), len(me.children())


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    return builder(tmp_path_factory.getbasetemp() / "hostile")


@pytest.fixture(scope="module", autouse=True)
def nothing_left_of_all(golden: dict[str, Any]) -> Iterator[None]:
    """What no single test may lose, all of them together must not lose either. `golden` keeps files open."""
    before = held()
    yield
    wait_until(lambda: held() == before, f"{before} descriptors, threads, children after all; {held()}")


@pytest.fixture(autouse=True)
def deeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deeds]:
    """Plans; and fails a test that leaves a process, a zombie, a thread or a descriptor."""
    made, before = Deeds(tmp_path, monkeypatch), held()
    yield made
    wait_until(lambda: held() == before, f"{before} descriptors, threads and children; {held()}")
    wait_until(lambda: made.processes() == [], f"no process is left; {made.processes()}")


def provoke(library: Path, model: Path, place: str, limits: Limits | None = None) -> tuple[list[int], Backend]:
    """Load, generate, abort at the first token if that is the place; always closed. The ids of a whole answer."""
    backend = Backend(source("npu", model, 128, 1, str(library)), limits)
    ids: list[int] = []
    stop = Stop()
    try:
        for item in backend.generate(Request((2, 5, 9), 20, (1,), Sampling()), stop):
            if isinstance(item, Finish):
                continue
            ids += item.ids
            if place == "abort":
                stop.wish()
        backend.settle()
    finally:
        backend.close()
    return ids, backend


def impatient(place: str) -> Limits:
    load = patient(LOAD_S) if place in ("load", "init") else 300
    silence = patient(SILENCE_S)
    return Limits(
        load_s=load, first_token_s=silence, prompt_token_s=0, token_s=silence, abort_s=silence, pong_s=patient(0.3)
    )


@pytest.mark.parametrize(
    ("place", "deed"), some_slow(ALL, lambda place, deed: place == "run" or deed in ("segfault", "throw"))
)
def test_a_death_is_told_at_once_with_status_and_last_lines(
    place: str, deed: str, hostile: Callable[..., Path], tiny_bundle: Path, deeds: Deeds
) -> None:
    library = hostile()
    deeds.plan(place, deed)
    with pytest.raises(WorkerDied) as caught:
        provoke(library, tiny_bundle / "model.sim", place)
    assert deeds.ago() < patient(LATE_S)
    error = caught.value
    assert type(error) is WorkerDied
    assert error.status == STATUS[deed]
    assert f"E rkllm: hostile {deed} at {place}" in error.lines
    assert f"hostile {deed} at {place}" in str(error)
    if deed == "throw":
        assert error.lines[-1] == f"  what():  hostile throw at {place}"


@pytest.mark.parametrize(
    ("place", "deed"),
    some_slow(ALL_STOPS, lambda place, deed: place == "run" or (deed == "hang" and place != "init")),
)
def test_a_standstill_is_ended_at_the_limit_and_nothing_printed_is_lost(
    place: str, deed: str, hostile: Callable[..., Path], tiny_bundle: Path, deeds: Deeds
) -> None:
    library = hostile()
    deeds.plan(place, deed)
    limits = impatient(place)
    with pytest.raises(WorkerHung) as caught:
        provoke(library, tiny_bundle / "model.sim", place, limits)
    loading = place == "init"
    size = (tiny_bundle / "model.sim").stat().st_size
    limit = limits.load_s + size / limits.load_bytes_s if loading else limits.token_s
    assert deeds.ago() < limit + patient(LATE_S)
    assert caught.value.lines[-1] == f"E rkllm: hostile {deed} at {place}"  # from stdout, and never flushed
    assert f"for {limit:g} s" in str(caught.value)


@pytest.mark.parametrize("deed", STATUS)
def test_a_death_while_it_is_loaded_is_told_at_once(
    deed: str, hostile: Callable[..., Path], tiny_bundle: Path, deeds: Deeds
) -> None:
    library = hostile()
    deeds.plan("load", deed)
    with pytest.raises((LibraryError, WorkerDied)) as caught:
        provoke(library, tiny_bundle / "model.sim", "load")
    assert deeds.ago() < patient(LATE_S)
    assert f"hostile {deed} at load" in "\n".join([str(caught.value), *caught.value.lines])


@pytest.mark.slow  # what tries the library first may outlive its parent for some seconds
@pytest.mark.parametrize("deed", STOPS)
def test_a_standstill_while_it_is_loaded_is_ended_at_the_limit(
    deed: str, hostile: Callable[..., Path], tiny_bundle: Path, deeds: Deeds
) -> None:
    library = hostile()
    deeds.plan("load", deed)
    limits = impatient("load")
    with pytest.raises((LibraryError, WorkerHung)):
        provoke(library, tiny_bundle / "model.sim", "load", limits)
    assert deeds.ago() < limits.load_s + patient(LATE_S)


@pytest.mark.parametrize("deed", ["hang", "segfault"])
def test_an_answer_that_nobody_wants_any_more_cannot_be_held_up_by_the_abort(
    deed: str, hostile: Callable[..., Path], tiny_bundle: Path, deeds: Deeds
) -> None:
    library = hostile()
    deeds.plan("abort", deed)
    backend = Backend(source("npu", tiny_bundle / "model.sim", 128, 1, str(library)), impatient("abort"))
    try:
        items = backend.generate(Request((2, 5), 20))
        next(items)
        began = time.monotonic()
        items.close()
        assert time.monotonic() - began < patient(LATE_S)  # it does not wait for the worker
        with pytest.raises((WorkerHung, WorkerDied)):
            backend.settle()  # the next job does
        assert deeds.ago() < patient(SILENCE_S + LATE_S)
        assert not backend.alive
    finally:
        backend.close()


def test_a_program_that_the_library_left_running_does_not_hide_its_death(
    hostile: Callable[..., Path], tiny_bundle: Path, deeds: Deeds
) -> None:
    library = hostile()
    deeds.plan("init", "child")
    with pytest.raises(WorkerDied) as caught:
        provoke(library, tiny_bundle / "model.sim", "init")
    assert deeds.ago() < patient(LATE_S)
    assert caught.value.status == 1


@pytest.mark.parametrize(
    ("place", "deed"),
    some_slow(
        [(place, deed) for place in ("load", "init", "run", "tokens", "thread") for deed in (*FLOODS, "close")],
        lambda place, deed: (place, deed) in {("init", "lines"), ("tokens", "one_line"), ("run", "close")},
    ),
)
def test_what_it_prints_or_closes_does_not_disturb_the_answer(
    place: str, deed: str, hostile: Callable[..., Path], tiny_bundle: Path, deeds: Deeds
) -> None:
    library = hostile()
    deeds.plan(place, deed)
    ids, backend = provoke(library, tiny_bundle / "model.sim", place)
    assert tuple(ids) == ANSWER
    raw = [line.raw for line in backend.lines]
    assert len(raw) <= 200
    assert max(map(len, raw)) <= 4096
    if deed in FLOODS:
        assert raw[-1] == "I rkllm: flooded"
    if deed != "lines":  # one endless line pushes nothing out
        assert f"E rkllm: hostile {deed} at {place}" in raw


def test_closed_descriptors_cost_no_time(hostile: Callable[..., Path], tiny_bundle: Path, deeds: Deeds) -> None:
    library = hostile()
    deeds.plan("init", "close")

    def took() -> float:
        provoke(library, tiny_bundle / "model.sim", "init")
        return deeds.ago()

    # A mark that is not found is waited for: a second, every time. A busy machine is not late every time.
    assert min(took() for _ in range(3)) < patient(0.8)


def test_a_file_that_takes_the_number_of_stderr_is_not_written_to(
    hostile: Callable[..., Path], tiny_bundle: Path, deeds: Deeds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, file = hostile(), tmp_path / "file"
    file.write_bytes(b"weights")
    monkeypatch.setenv("HOSTILE_FILE", str(file))
    deeds.plan("init", "file")
    ids, _ = provoke(library, tiny_bundle / "model.sim", "init")
    assert tuple(ids) == ANSWER
    assert file.read_bytes() == b"weights"


@pytest.mark.slow
def test_floods_do_not_stay_in_memory(hostile: Callable[..., Path], tiny_bundle: Path, deeds: Deeds) -> None:
    library, me = hostile(), psutil.Process()
    for deed in FLOODS:
        deeds.plan("run", deed)
        provoke(library, tiny_bundle / "model.sim", "run")
    before = me.memory_info().rss
    for deed in FLOODS * 2:
        deeds.plan("run", deed)
        provoke(library, tiny_bundle / "model.sim", "run")
    assert me.memory_info().rss - before < FLOODED / 2


@pytest.fixture
def numbers(golden: dict[str, Any]) -> tuple[list[int], list[int]]:
    """A prompt and what the CPU answers to it undisturbed."""
    tiny = golden["tiny-gemma2"]
    return tiny["prompt_6"].tolist(), tiny["greedy_6"].tolist()


CAUSES = {
    ("load", "segfault"): "", ("load", "exit"): "", ("init", "throw"): "crash", ("init", "exit"): "crash",
    ("run", "abort"): "crash", ("run", "spin"): "hang", ("run", "kill"): "oom_killed",
}  # fmt: skip


@pytest.mark.parametrize(
    ("place", "deed"),
    some_slow(list(CAUSES), lambda place, deed: (place, deed) in {("load", "exit"), ("run", "abort")}),
)
def test_in_auto_the_cpu_gives_the_undisturbed_answer(
    place: str,
    deed: str,
    hostile: Callable[..., Path],
    hostile_assistant: Callable[..., Assistant],
    deeds: Deeds,
    numbers: tuple[list[int], list[int]],
) -> None:
    deeds.plan(place, deed)
    gemma = hostile_assistant(hostile())
    list(gemma.generate(numbers[0], max_tokens=24, temperature=0))
    answer = gemma.last
    assert answer is not None
    assert (answer.backend, list(answer.ids)) == ("cpu", numbers[1])
    assert answer.degraded is not None
    assert answer.degraded.cause == (CAUSES[place, deed] or answer.degraded.cause)
    assert "\n" not in answer.degraded.message
    gemma.close()


@pytest.mark.parametrize(
    ("place", "deed"),
    some_slow(
        [("tokens", "segfault"), ("tokens", "hang"), ("thread", "segfault"), ("thread", "hang")],
        lambda place, deed: (place, deed) == ("tokens", "segfault"),
    ),
)
def test_in_auto_the_cpu_goes_on_behind_the_tokens_that_came(
    place: str,
    deed: str,
    hostile: Callable[..., Path],
    hostile_assistant: Callable[..., Assistant],
    deeds: Deeds,
    numbers: tuple[list[int], list[int]],
) -> None:
    deeds.plan(place, deed)
    gemma = hostile_assistant(hostile())
    list(gemma.generate(numbers[0], max_tokens=12, temperature=0))
    assert gemma.last is not None
    got, backend = list(gemma.last.ids), gemma.last.backend
    assert backend == "cpu"
    gemma.prefer("cpu")
    continued = []
    for count in (1, 2, 3):  # tokens of one burst are lost together
        list(gemma.generate([*numbers[0], *ANSWER[:count]], max_tokens=12 - count, temperature=0))
        continued.append([*ANSWER[:count], *gemma.last.ids])
    assert got in continued
    gemma.close()


@pytest.fixture
def hostile_assistant(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Assistant]]:
    """hostile_assistant(library): in auto, with limits that a CPU engine keeps on a busy machine too."""
    from rk_gemma_runtime.assistant import Assistant
    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.options import Options

    monkeypatch.setenv("HOSTILE_SPARES", "1")
    made: list[Assistant] = []

    def make(library: Path) -> Assistant:
        limits = Limits(load_s=patient(10), token_s=patient(2), first_token_s=patient(2), prompt_token_s=0)
        made.append(Assistant(Bundle.open(tiny_bundle), Options("auto", str(library), threads=1, limits=limits)))
        return made[-1]

    yield make
    for gemma in made:
        gemma.close()


@pytest.mark.slow
def test_one_assistant_outlives_a_dozen_deaths(
    hostile: Callable[..., Path],
    hostile_assistant: Callable[..., Assistant],
    deeds: Deeds,
    numbers: tuple[list[int], list[int]],
) -> None:
    deeds.plan("none", "none")
    gemma = hostile_assistant(hostile())
    before = held()
    for deed in [*STATUS, *STATUS, "close", "one_line"]:
        gemma.model._backends._drop()
        deeds.plan("run", deed)
        gemma.prefer("npu")
        if deed in STATUS:
            with pytest.raises(EngineError):
                list(gemma.generate(numbers[0], max_tokens=5, temperature=0))
        else:
            list(gemma.generate(numbers[0], max_tokens=5, temperature=0))
            assert gemma.last is not None
            assert gemma.last.ids == ANSWER
    deeds.plan("none", "none")
    gemma.prefer("cpu")
    gemma.prefer("npu")
    list(gemma.generate(numbers[0], max_tokens=5, temperature=0))
    assert gemma.last is not None
    assert (gemma.last.backend, gemma.last.ids) == ("npu", ANSWER)
    wait_until(lambda: held() == before, f"{before} descriptors, threads and children; {held()}")


@pytest.mark.parametrize(
    ("place", "deed"),
    some_slow(
        [("load", "lines"), ("init", "lines"), ("init", "close"), ("run", "one_line"), ("tokens", "odd")],
        lambda place, deed: (place, deed) in {("load", "lines"), ("tokens", "odd")},
    ),
)
def test_nothing_of_it_reaches_the_streams_of_the_command(
    place: str, deed: str, hostile: Callable[..., Path], tiny_bundle: Path, cli: Cli, deeds: Deeds
) -> None:
    deeds.plan(place, deed)
    given = {"RK_GEMMA_LIBRKLLMRT": str(hostile())}
    done = cli("run", tiny_bundle, "--ids", "2,5,9", "--backend", "npu", env=given, timeout=patient(60))
    assert (done.returncode, done.stdout, done.stderr) == (0, "7,7,7,7,7\n", "")


@pytest.mark.parametrize(("place", "deed"), [("load", "abort"), ("run", "throw")])
def test_the_command_answers_and_says_why_in_one_line(
    place: str,
    deed: str,
    hostile: Callable[..., Path],
    tiny_bundle: Path,
    cli: Cli,
    deeds: Deeds,
    numbers: tuple[list[int], list[int]],
) -> None:
    deeds.plan(place, deed)
    given = {"RK_GEMMA_LIBRKLLMRT": str(hostile())}
    options = ("--threads", 1, "--max-tokens", 24, "--temperature", 0, "--json")
    prompt = ",".join(map(str, numbers[0]))
    done = cli("run", tiny_bundle, "--ids", prompt, *options, env=given, timeout=patient(60))
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert (answer["backend"], answer["ids"]) == ("cpu", numbers[1])
    assert f"hostile {deed} at {place}" in one_line(done.stderr)
