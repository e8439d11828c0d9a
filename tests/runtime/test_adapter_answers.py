"""A LoRA adapter from the bundle to the answer: on the NPU, on the CPU, and when the one takes over from the
other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from adapted import ADAPTER, adapted_pair
from runtimekit import nothing, one_line, patient

from rk_gemma_runtime.engines.npu import NpuEngine
from rk_gemma_runtime.errors import BundleError, EngineError
from rk_gemma_runtime.jobs import Request, Sampling, Setup
from rk_gemma_runtime.librkllm.library import load
from rk_gemma_runtime.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma_runtime.assistant import Assistant

pytestmark = pytest.mark.board
PROMPT = [2, 317, 425, 341, 82, 275]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return adapted_pair(tmp_path_factory.mktemp("adapted"))


def ask(gemma: Assistant) -> list[int]:
    list(gemma.generate(PROMPT, max_tokens=12, temperature=0))
    assert gemma.last is not None
    return list(gemma.last.ids)


@pytest.mark.parametrize(("backend", "layout"), [("npu", "1.3.0"), ("npu", "1.1.0"), ("cpu", "1.3.0")])
def test_the_adapter_answers_as_the_merged_model(
    backend: str, layout: str, pair: tuple[Path, Path], assistant: Callable[..., Assistant]
) -> None:
    plain = ask(assistant(pair[0], backend, layout))
    wanted = ask(assistant(pair[1], backend, layout))
    assert ask(assistant(pair[0], backend, layout, adapter=ADAPTER)) == wanted != plain
    assert ask(assistant(pair[0], backend, layout, adapter=ADAPTER, adapter_scale=0.0)) == plain


def test_the_cpu_goes_on_with_the_same_adapter(
    pair: tuple[Path, Path], assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    wanted = ask(assistant(pair[1], "npu"))
    profile(crash_at_token=4)
    gemma = assistant(pair[0], "auto", adapter=ADAPTER)
    assert ask(gemma) == wanted
    assert gemma.last is not None
    assert gemma.last.backend == "cpu"


def test_requests_may_change_adapter_and_scale(pair: tuple[Path, Path], simulator: Callable[[str], Path]) -> None:
    """Keys and values that one adapter has computed are not another one's, whatever the library thinks."""
    file = str(pair[0] / f"{ADAPTER}.lora.sim")
    engine = NpuEngine(load(simulator("1.3.0")), Setup(str(pair[0] / "model.sim"), 128, adapters=((ADAPTER, file),)))

    def ids(adapter: str, scale: float = 1.0) -> list[int]:
        got: list[int] = []
        request = Request(tuple(PROMPT), 12, (), Sampling(0.0), adapter, scale)
        engine.generate(request, got.append, nothing, Stop())
        return got

    plain, full, half = ids(""), ids(ADAPTER), ids(ADAPTER, 0.5)
    assert len({tuple(x) for x in (plain, full, half)}) == 3
    assert [ids(""), ids(ADAPTER), ids(ADAPTER, 0.5), ids("")] == [plain, full, half, plain]
    with pytest.raises(EngineError, match="no adapter 'other'"):
        ids("other")
    engine.close()


def test_on_the_command_line(
    pair: tuple[Path, Path], cli: Any, board: Callable[..., dict[str, str]], assistant: Callable[..., Assistant]
) -> None:
    wanted = ask(assistant(pair[1], "npu"))
    base = ("run", pair[0], "--ids", ",".join(map(str, PROMPT)), "--max-tokens", 12, "--temperature", 0, "--json")
    for name in (ADAPTER, f"{ADAPTER}=1.0"):
        done = cli(*base, "--adapter", name, env=board(), timeout=patient(60))
        assert json.loads(done.stdout)["ids"] == wanted
    for name, code, words in (("other", 3, ADAPTER), (f"{ADAPTER}=x", 2, "NAME=SCALE")):
        done = cli(*base, "--adapter", name, env=board(), timeout=patient(60))
        assert (done.returncode, done.stdout) == (code, "")
        assert words in one_line(done.stderr)


def test_a_bundle_without_it_says_what_it_has(tiny_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    with pytest.raises(BundleError, match="--lora-adapter"):
        assistant(tiny_bundle, "npu", adapter=ADAPTER)
