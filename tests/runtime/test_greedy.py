"""Greedy ids and logits against transformers, on the simulated NPU and on the CPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from runtimekit import FAMILIES, patient, source, tolerance

from rk_gemma_runtime.errors import EngineError, NpuError
from rk_gemma_runtime.jobs import RowsRequest
from rk_gemma_runtime.supervisor import Backend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtimekit import Cli

    from rk_gemma_runtime.assistant import Assistant

pytestmark = pytest.mark.board

BACKENDS = [("npu", "1.3.0"), ("npu", "1.1.0"), ("cpu", "1.3.0")]
KEYS = {
    "ids", "text", "backend", "finish_reason", "prompt_tokens", "cached_tokens", "new_tokens", "ttft_s",
    "tokens_per_second", "degraded", "reload_s", "made_by", "remedies",
}  # fmt: skip


@pytest.mark.parametrize(("backend", "layout"), BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_ids_are_transformers(
    family: str,
    backend: str,
    layout: str,
    tiny_bundles: Callable[[str], Path],
    assistant: Callable[..., Assistant],
    golden: dict[str, Any],
) -> None:
    gemma = assistant(tiny_bundles(family), backend, layout)
    numbers = golden[family]
    for n in range(8):
        prompt = numbers[f"prompt_{n}"].tolist()
        list(gemma.generate(prompt, max_tokens=24, temperature=0))
        answer = gemma.last
        assert answer is not None
        assert list(answer.ids) == numbers[f"greedy_{n}"].tolist(), n
        assert (answer.backend, answer.finish_reason, answer.degraded) == (backend, "length", None)
        assert (answer.prompt_tokens, answer.new_tokens) == (len(prompt), 24)
        assert answer.ttft_s > 0
        assert answer.tokens_per_second > 0


@pytest.mark.parametrize(("backend", "layout"), BACKENDS)
def test_the_command_prints_what_is_documented(
    backend: str,
    layout: str,
    tiny_bundle: Path,
    cli: Cli,
    board: Callable[..., dict[str, str]],
    golden: dict[str, Any],
) -> None:
    numbers = golden["tiny-gemma2"]
    prompt = ",".join(map(str, numbers["prompt_6"].tolist()))
    done = cli(
        "run", tiny_bundle, "--ids", prompt, "--max-tokens", 24, "--temperature", 0, "--backend", backend, "--json",
        env=board(layout), timeout=patient(60),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    tree = json.loads(done.stdout)
    assert set(tree) == KEYS
    assert tree["ids"] == numbers["greedy_6"].tolist()
    assert (tree["text"], tree["backend"], tree["finish_reason"]) == ("", backend, "length")
    assert (tree["prompt_tokens"], tree["cached_tokens"], tree["new_tokens"]) == (33, 0, 24)
    assert tree["ttft_s"] > 0
    assert tree["tokens_per_second"] > 0
    assert tree["degraded"] is None


def test_without_json_an_ids_only_bundle_prints_ids(
    tiny_bundle: Path, cli: Cli, board: Callable[..., dict[str, str]], golden: dict[str, Any]
) -> None:
    numbers = golden["tiny-gemma2"]
    prompt = ",".join(map(str, numbers["prompt_0"].tolist()))
    done = cli(
        "run", tiny_bundle, "--ids", prompt, "--max-tokens", 3, "--temperature", 0, env=board(), timeout=patient(60)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ",".join(map(str, numbers["greedy_0"].tolist()[:3])) + "\n"


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_transformers(
    family: str, tiny_bundles: Callable[[str], Path], simulator: Callable[[str], Path], golden: dict[str, Any]
) -> None:
    np = pytest.importorskip("numpy")
    model = tiny_bundles(family) / "model.sim"
    backend = Backend(source("npu", model, 128, 1, str(simulator("1.3.0"))))
    try:
        for n in range(8):
            wanted = golden[family][f"logits_{n}"]
            ids = tuple(golden[family][f"prompt_{n}"].tolist())
            parts = list(backend.rows(RowsRequest(tuple(ids))))
            got = np.frombuffer(b"".join(data for data, _ in parts), dtype=np.float32).reshape(wanted.shape)
            assert sum(rows for _, rows in parts) == len(ids)
            assert np.abs(got - wanted).max() < tolerance()
    finally:
        backend.close()


def test_an_old_library_and_the_cpu_say_that_they_have_no_logits(
    tiny_bundle: Path, simulator: Callable[[str], Path]
) -> None:
    sources = [
        (source("npu", tiny_bundle / "model.sim", 128, 1, str(simulator("1.1.0"))), NpuError),
        (source("cpu", tiny_bundle / "model.gguf", 128, 1), EngineError),
    ]
    for where, error in sources:
        backend = Backend(where)
        try:
            with pytest.raises(error, match="logits"):
                list(backend.rows(RowsRequest((2, 5))))
            backend.reset()  # it still serves
        finally:
            backend.close()


@pytest.mark.parametrize(("backend", "layout"), BACKENDS)
def test_sampling_stays_in_the_vocabulary_and_at_the_limit(
    backend: str, layout: str, tiny_bundle: Path, assistant: Callable[..., Assistant]
) -> None:
    gemma = assistant(tiny_bundle, backend, layout)
    for temperature in (0.8, 2.0, 0.8):  # a change of sampling loads again before 1.3.0
        list(gemma.generate([2, 5, 9], max_tokens=5, temperature=temperature))
        assert gemma.last is not None
        assert len(gemma.last.ids) <= 5
        assert all(0 <= i < 512 for i in gemma.last.ids)


@pytest.mark.parametrize(("backend", "layout"), BACKENDS)
def test_an_answer_ends_where_the_context_ends(
    backend: str, layout: str, tiny_bundle: Path, assistant: Callable[..., Assistant]
) -> None:
    gemma = assistant(tiny_bundle, backend, layout)
    list(gemma.generate([2, *range(300, 420)], temperature=0))
    assert gemma.last is not None
    assert (gemma.last.new_tokens, gemma.last.finish_reason) == (gemma.context - 121, "length")
