"""The demo as a user gets it: exported to w8a8, answered by the runtime on the simulated NPU."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("torch", reason="needs torch: pip install rk-gemma[eval]")
pytest.importorskip("transformers", reason="needs transformers: pip install rk-gemma[eval]")
pytestmark = [pytest.mark.slow, pytest.mark.board, pytest.mark.filterwarnings("default")]


def test_w8a8_answers_as_well_as_float32(
    demo_bundle: Path, simulator: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from demo.evaluate import RuntimeAnswerer, accuracy, load_questions, transformers_answerer

    monkeypatch.setenv("RK_GEMMA_LIBRKLLMRT", str(simulator("1.3.0")))
    questions = load_questions()
    reference = accuracy(transformers_answerer(), questions)
    with closing(RuntimeAnswerer(demo_bundle, "npu")) as answerer:
        on_npu = accuracy(answerer, questions)
    print(f"held-out questions: float32 {reference:.3f}, w8a8 on the simulated NPU {on_npu:.3f}")
    assert reference >= 0.85
    assert abs(reference - on_npu) <= 0.02


def test_w8a8_logits_stay_near_float32(
    make_bundle: Callable[..., Path],
    simulator: Callable[[str], Path],
    cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    bundle = make_bundle(ROOT / "demo" / "checkpoint", cpu="none")
    done = cli(
        "eval", bundle, "--against", ROOT / "demo" / "checkpoint", "--text", ROOT / "demo" / "heldout.jsonl",
        "--librkllmrt", simulator("1.3.0"), "--json", timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    print(figures)
    assert figures["positions"] > 5000
    assert figures["top1"] >= 0.98
    assert figures["mean_kl"] <= 0.01
    stored = json.loads(cli("inspect", bundle, "--json").stdout)["quality"]["npu"]
    assert stored == figures
