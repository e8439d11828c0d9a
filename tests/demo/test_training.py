"""Training repeats itself, and the trained model answers what it never saw. Needs torch."""

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


@pytest.mark.parametrize("quantised", [False, True])
def test_held_out_questions_are_answered(quantised: bool) -> None:
    from demo.evaluate import accuracy, load_questions, transformers_answerer

    assert accuracy(transformers_answerer(fake_w8a8=quantised), load_questions()) >= 0.85


def test_w8a8_stays_close_to_the_weights_it_came_from() -> None:
    from demo.evaluate import load_held_out
    from demo.reference import closeness
    from demo.tokenizer import CHECKPOINT

    close = closeness(CHECKPOINT, load_held_out())
    assert close["top1_agreement"] >= 0.98
    assert close["mean_kl"] <= 0.01
