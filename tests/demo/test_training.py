"""Training repeats itself. Needs torch. What the trained model answers: test_demo_on_npu.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("torch", reason="needs torch: pip install rk-gemma[eval]")
pytest.importorskip("transformers", reason="needs transformers: pip install rk-gemma[eval]")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def train_briefly(out: Path) -> bytes:
    from demo.train import configure_parser, train

    train(configure_parser().parse_args(["--steps", "4", "--tokens", "512", "--out", str(out)]))
    return (out / "model.safetensors").read_bytes()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    assert train_briefly(tmp_path / "a") == train_briefly(tmp_path / "b")
