"""What real releases of librkllmrt are known to do to a careless caller."""

from __future__ import annotations

import gc
import resource
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from runtimekit import nothing, patient, wait_until

from rk_gemma_runtime.errors import NpuError, NpuReason, UsageError
from rk_gemma_runtime.jobs import Sampling
from rk_gemma_runtime.librkllm.abi import LAYOUTS
from rk_gemma_runtime.librkllm.library import load
from rk_gemma_runtime.librkllm.options import BIG_CORES, RK3588_CORES
from rk_gemma_runtime.librkllm.params import init_param
from rk_gemma_runtime.librkllm.session import GREEDY, InitOptions, RkSampling, RunOptions, Session, Tokens
from rk_gemma_runtime.options import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rk_gemma_runtime.assistant import Assistant
    from rk_gemma_runtime.librkllm.library import Library

pytestmark = pytest.mark.board

HOT = Sampling(temperature=0.7, top_k=5)


@pytest.fixture(scope="module")
def libraries(simulator: Callable[[str], Path]) -> dict[str, Library]:
    return {name: load(simulator(name)) for name in LAYOUTS}


@pytest.fixture
def case(golden: dict[str, Any]) -> tuple[list[int], list[int]]:
    tiny = golden["tiny-gemma2"]
    return tiny["prompt_6"].tolist(), tiny["greedy_6"].tolist()[:12]


@contextmanager
def opened(library: Library, bundle: Path, **options: Any) -> Iterator[Session]:
    chosen = InitOptions(**{"context": 128, "sampling": GREEDY, "max_new_tokens": 12, **options})
    session = Session(library, bundle / "model.sim", chosen)
    try:
        yield session
    finally:
        session.close()


def ids_of(session: Session, prompt: list[int], options: RunOptions | None = None) -> list[int]:
    got: list[int] = []
    session.run(Tokens(prompt), lambda token, text: got.append(token), options)
    return got


@pytest.mark.parametrize("layout", LAYOUTS)
def test_init_that_says_it_failed_and_returns_0(
    layout: str, tiny_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    profile(init="silent_fail")
    with pytest.raises(NpuError) as caught:
        assistant(tiny_bundle, "npu", layout)
    assert "failed to malloc npu memory" in str(caught.value)
    assert caught.value.lines
    gemma = assistant(tiny_bundle, "auto", layout)
    list(gemma.generate([2, 5], max_tokens=2))
    assert gemma.last is not None
    assert gemma.last.backend == "cpu"
    assert gemma.last.degraded is not None


def test_init_that_refuses_late_is_a_refusal(
    tiny_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    """Minus one has been seen after 62 s: longer than any answer may be silent, shorter than a load may take."""
    profile(init="ram", init_delay_ms=1500)
    with pytest.raises(NpuError) as caught:
        assistant(tiny_bundle, "npu", limits=Limits(load_s=patient(60), first_token_s=0.5, token_s=0.5))
    assert caught.value.reason is NpuReason.NO_RAM
    assert Limits().load_s > 120


@pytest.mark.parametrize("said", ["true", "false", "error"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_abort_is_not_waited_for(
    layout: str,
    said: str,
    libraries: dict[str, Library],
    tiny_bundle: Path,
    case: tuple[list[int], list[int]],
    profile: Callable[..., Path],
) -> None:
    profile(finish_after_abort=said, token_delay_us=2000)
    with opened(libraries[layout], tiny_bundle, max_new_tokens=80) as session:
        third = threading.Event()
        got: list[int] = []

        def on_token(token: int, text: bytes) -> None:
            got.append(token)
            if len(got) == 3:
                third.set()

        run = session.run_async(Tokens(case[0]), on_token)
        assert third.wait(patient(20))
        assert session.is_running()
        session.abort()
        outcome = run.wait(patient(20))
        assert not session.is_running()
        assert outcome.finished == (said == "true")
        assert got[:3] == case[1][:3]
        assert len(got) < 80
    with opened(libraries[layout], tiny_bundle) as session:
        assert ids_of(session, case[0]) == case[1]


@pytest.mark.parametrize("busy", [1, 0])
def test_is_running_whichever_value_means_yes(
    busy: int, libraries: dict[str, Library], tiny_bundle: Path, profile: Callable[..., Path]
) -> None:
    profile(is_running_busy=busy, token_delay_us=2000)
    with opened(libraries["1.2.1"], tiny_bundle) as session:
        assert not session.is_running()
        seen: list[bool] = []
        session.run(Tokens([2, 5, 7]), lambda token, text: seen.append(session.is_running()))
        assert seen
        assert all(seen)
        assert not session.is_running()


def test_a_callback_after_destroy_is_not_heard_and_hurts_nobody(
    libraries: dict[str, Library], tiny_bundle: Path, profile: Callable[..., Path]
) -> None:
    profile(callback_after_destroy_ms=30)
    heard: list[int] = []
    late: list[int] = []
    with opened(libraries["1.3.0"], tiny_bundle) as session:
        session.run(Tokens([2, 5, 7]), lambda token, text: heard.append(token))
        receiver = session._handle.receiver
    assert (receiver.listen, receiver.on_token) == (None, None)
    count = len(heard)
    receiver.listen = lambda address, state: late.append(state)  # only to see that it comes
    del session
    gc.collect()
    wait_until(lambda: bool(late), "the library calls once more")
    assert len(heard) == count


def test_the_librarys_own_repeat_penalty_is_not_applied(
    libraries: dict[str, Library], tiny_bundle: Path, case: tuple[list[int], list[int]]
) -> None:
    for library in libraries.values():
        assert library.cdll.rkllm_createDefaultParam().repeat_penalty == pytest.approx(1.1)
        assert init_param(library, tiny_bundle, InitOptions(64)).repeat_penalty == 1.0
        with opened(library, tiny_bundle) as session:
            assert ids_of(session, case[0]) == case[1]
        with opened(library, tiny_bundle, sampling=RkSampling(1, 1.0, 0.0, repeat_penalty=8.0)) as session:
            assert ids_of(session, case[0]) != case[1]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in {"1.1.0", "1.2.0", "1.2.1b1"}])
def test_set_chat_template_costs_the_cache(
    layout: str, libraries: dict[str, Library], tiny_bundle: Path, case: tuple[list[int], list[int]]
) -> None:
    with opened(libraries[layout], tiny_bundle) as session:
        assert ids_of(session, case[0]) == case[1]
        assert session.cache_sizes()[0] > 0
        session.set_chat_template()
        assert session.cache_sizes() == (0,)
        outcome = session.run(Tokens(case[0]), nothing)
        assert outcome.perf is not None
        assert outcome.perf.prefill_tokens == len(case[0])


def test_the_limit_of_open_files_is_raised_before_init(
    tiny_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3500:
        pytest.skip(f"the hard limit of open files here is {hard}; run with `ulimit -Hn 4000`")
    profile(buffers=3000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        gemma = assistant(tiny_bundle, "npu")
        list(gemma.generate([2, 5], max_tokens=2))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_descriptors_are_named(
    tiny_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    profile(buffers=200_000)  # more than is asked for
    with pytest.raises(NpuError) as caught:
        assistant(tiny_bundle, "npu")
    assert caught.value.reason is NpuReason.FD_LIMIT
    assert "LimitNOFILE" in caught.value.remedy


def test_two_models_in_one_process(
    libraries: dict[str, Library], tiny_bundle: Path, case: tuple[list[int], list[int]], profile: Callable[..., Path]
) -> None:
    profile(exclusive_domains=True)
    library = libraries["1.3.0"]
    with opened(library, tiny_bundle) as first, opened(library, tiny_bundle, base_domain=1) as second:
        for session in (first, second, first, second):
            assert ids_of(session, case[0]) == case[1]
        with pytest.raises(NpuError), opened(library, tiny_bundle, base_domain=1):
            pass
        assert ids_of(first, case[0]) == case[1]
    with opened(library, tiny_bundle) as again:
        assert ids_of(again, case[0]) == case[1]


def test_two_models_in_two_processes(
    tiny_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    profile(exclusive_domains=True)
    assistant(tiny_bundle, "npu")
    second = assistant(tiny_bundle, "npu", domain=3)
    list(second.generate([2, 5], max_tokens=2))
    third = assistant(tiny_bundle, "npu", domain=3)
    assert [a.text for a in third.remedies if a.remedy == "domain"] == ["IOMMU domain 4 in place of 3"]
    with pytest.raises(NpuError, match="IOMMU domain 4 in place of 3 did not help") as caught:
        assistant(tiny_bundle, "npu", domain=3)
    assert caught.value.reason is NpuReason.IOVA_EXHAUSTED
    fourth = assistant(tiny_bundle, "auto", domain=3)
    assert fourth.backend == "cpu"
    with pytest.raises(UsageError, match="domain: 16"):
        assistant(tiny_bundle, "npu", domain=16)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_end_of_turn_ends_an_answer_where_the_library_stops_on_one_id_only(
    layout: str, demo_bundle: Path, assistant: Callable[..., Assistant]
) -> None:
    gemma = assistant(demo_bundle, "npu", layout)
    turn = gemma.tokenizer.end_of_turn
    text = "".join(gemma.chat("What does errno 14 mean?", temperature=0, max_tokens=80))
    assert gemma.last is not None
    assert gemma.last.finish_reason == "stop"
    assert turn not in gemma.last.ids
    assert text


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_model_is_loaded_again_only_when_sampling_really_changed(
    layout: str, tiny_bundle: Path, assistant: Callable[..., Assistant]
) -> None:
    gemma = assistant(tiny_bundle, "npu", layout, sampling=HOT)
    fixed = not LAYOUTS[layout].sampling_per_run
    wanted = [(HOT, False), (HOT, False), (Sampling(0.0), fixed), (Sampling(0.0), False), (HOT, fixed)]
    for sampling, again in wanted:
        list(gemma.generate([2, 5, 7], max_tokens=3, sampling=sampling))
        assert gemma.last is not None
        assert (gemma.last.reload_s > 0) == again


def test_a_reload_that_is_refused_is_an_error_and_the_next_one_is_tried(
    tiny_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    gemma = assistant(tiny_bundle, "npu", "1.2.1", sampling=HOT)
    profile(init="ram")
    with pytest.raises(NpuError):
        list(gemma.generate([2, 5], max_tokens=2, temperature=0))
    profile()
    assert len(list(gemma.generate([2, 5], max_tokens=2, temperature=0))) <= 2
    assert gemma.last is not None
    assert (gemma.last.backend, gemma.last.new_tokens) == ("npu", 2)


def test_the_cost_of_a_reload_is_logged(
    tiny_bundle: Path, assistant: Callable[..., Assistant], caplog: pytest.LogCaptureFixture
) -> None:
    gemma = assistant(tiny_bundle, "npu", "1.2.1", sampling=HOT)
    with caplog.at_level("WARNING", "rk_gemma_runtime.library"):
        list(gemma.generate([2, 5], max_tokens=2, temperature=0))
        wait_until(lambda: "takes sampling at init: loaded the model again in" in caplog.text, "the cost is logged")


def test_a_command_knows_its_sampling_before_it_loads(
    tiny_bundle: Path, cli: Any, board: Callable[..., dict[str, str]]
) -> None:
    done = cli("run", tiny_bundle, "--ids", "2,5", "--max-tokens", 2, "--top-k", 7, "--json", env=board("1.2.1"))
    assert '"reload_s": 0.0' in done.stdout


def test_the_big_cores_are_chosen_where_there_are_eight(
    libraries: dict[str, Library], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: RK3588_CORES)
    for name, library in libraries.items():
        extend = init_param(library, tiny_bundle, InitOptions(64)).extend_param
        if name != "1.1.0":
            assert (extend.enabled_cpus_num, extend.enabled_cpus_mask) == (4, 0xF0)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert InitOptions(64).cpus is None
    assert InitOptions(64, cpus=(6, 7)).cpus != BIG_CORES


def test_logits_do_not_pile_up(libraries: dict[str, Library], tiny_bundle: Path) -> None:
    """From 1.3.0 the library keeps an output buffer until the callback releases it."""
    import psutil

    process = psutil.Process()
    with opened(libraries["1.3.0"], tiny_bundle) as session:
        prompt = Tokens(list(range(2, 120)))
        for _ in range(20):
            session.logits(prompt)
        before = process.memory_info().rss
        for _ in range(200):  # 242 kB each
            session.logits(prompt)
        assert process.memory_info().rss - before < 8 << 20


def test_what_a_listener_raises_ends_the_run_and_is_raised(
    libraries: dict[str, Library], tiny_bundle: Path, case: tuple[list[int], list[int]], profile: Callable[..., Path]
) -> None:
    profile(token_delay_us=2000)
    for library in libraries.values():
        with opened(library, tiny_bundle, max_new_tokens=90) as session:
            with pytest.raises(ZeroDivisionError):
                session.run(Tokens(case[0]), lambda token, text: 1 // 0)
            session.clear()
            assert ids_of(session, case[0])[:12] == case[1]
