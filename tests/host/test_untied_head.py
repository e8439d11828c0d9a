"""An output layer of its own: used, and told from one that repeats the embedding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hosttools import GEMMA1, GEMMA2, bf16_exact, environment, errors_of, random_weights, write_checkpoint
from llamatool import answers
from simreader import read_sim

from rk_gemma.checkpoint import Checkpoint
from rk_gemma.export import gguffile
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TABLE = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


def with_head(config: Any, seed: int = 9) -> dict[str, Any]:
    weights = random_weights(config)
    values = np.random.default_rng(seed).normal(0, 0.2, weights[TABLE].shape).astype(np.float32)
    return {**weights, HEAD: bf16_exact(values)}


@pytest.mark.parametrize("stated", [{}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "base_model.model."])
@pytest.mark.parametrize("config", [GEMMA1, GEMMA2], ids=["gemma", "gemma2"])
def test_the_npu_file_has_it(config: Any, prefix: str, stated: dict[str, bool], tmp_path: Path) -> None:
    """Whatever config.json says: transformers 5 takes it from the file."""
    weights = with_head(config)
    source = write_checkpoint(
        tmp_path / "src", {**config, **stated}, {prefix + name: values for name, values in weights.items()}
    )
    export(source, tmp_path / "out", Options("sim", "fp16", "none"))
    sim = read_sim(tmp_path / "out" / "model.sim")
    np.testing.assert_array_equal(sim.tensors["embed"], weights[TABLE].astype(np.float16))
    np.testing.assert_array_equal(sim.tensors["output"], weights[HEAD].astype(np.float16))


def test_a_model_without_prefix_and_its_head(tmp_path: Path) -> None:
    weights = {name.removeprefix("model."): values for name, values in with_head(GEMMA2).items()}
    assert Checkpoint.open(write_checkpoint(tmp_path, GEMMA2, weights)).untied


@pytest.mark.parametrize("stated", [{}, {"tie_word_embeddings": False}])
@pytest.mark.parametrize("dtype", ["BF16", "F32", "F16"])
def test_one_that_repeats_the_embedding_is_no_head_of_its_own(
    dtype: str, stated: dict[str, bool], tmp_path: Path
) -> None:
    weights = random_weights(GEMMA2)
    source = write_checkpoint(tmp_path / "src", {**GEMMA2, **stated}, {**weights, HEAD: weights[TABLE]}, dtype)
    checkpoint = Checkpoint.open(source)
    assert (checkpoint.untied, checkpoint.notes) == (False, ())
    assert export(source, tmp_path / "out", Options()).manifest.cpu


@pytest.mark.parametrize("row", [0, 77, 127])
def test_one_differing_value_counts(row: int, tmp_path: Path) -> None:
    weights = random_weights(GEMMA2)
    weights[HEAD] = weights[TABLE].copy()
    weights[HEAD][row, 3] += 1
    assert Checkpoint.open(write_checkpoint(tmp_path, GEMMA2, weights)).untied


@pytest.mark.slow
@pytest.mark.parametrize("config", [GEMMA1, GEMMA2], ids=["gemma", "gemma2"])
def test_llama_cpp_refuses_one(config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, llama.cpp has learnt it, and the exporter can write it."""
    weights = with_head(config)
    source = write_checkpoint(tmp_path / "src", config, weights)
    plain = gguffile._tensors
    more = lambda checkpoint: [*plain(checkpoint), ("output.weight", checkpoint.head)]  # noqa: E731
    monkeypatch.setattr(gguffile, "_tensors", more)
    monkeypatch.setattr(gguffile, "check_gguf", lambda checkpoint: None)
    bundle = export(source, tmp_path / "out", Options("none"))
    with pytest.raises(AssertionError, match="Failed to init"):
        answers([2, 5, 9], [(bundle.path("model.gguf"), None, 1.0)])


@pytest.mark.parametrize("npu", ["sim", "none"])
def test_llama_cpp_has_no_place_for_it(npu: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    """Refused before anything is written, with the option that exports the rest."""
    source = write_checkpoint(tmp_path / "src", GEMMA2, with_head(GEMMA2))
    done = main("export", source, "-o", tmp_path / "b", "--npu", npu)
    assert done.code == 3
    assert "lm_head.weight" in errors_of(done.stderr)[0] and "--cpu none" in errors_of(done.stderr)[0]
    assert [p.name for p in tmp_path.iterdir()] == ["src"]
    assert main("export", source, "-o", tmp_path / "b", "--cpu", "none").code == 0


def test_it_is_missing(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {**GEMMA2, "tie_word_embeddings": False})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing; config\.json says tie_word_embeddings"):
        Checkpoint.open(tmp_path)


def test_it_has_another_vocabulary(tmp_path: Path) -> None:
    weights = with_head(GEMMA2)
    weights[HEAD] = weights[HEAD][:-1]
    write_checkpoint(tmp_path, GEMMA2, weights)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight has shape \[127, 64\]"):
        Checkpoint.open(tmp_path)


@pytest.mark.slow
@pytest.mark.board
def test_greedy_ids_are_transformers(tmp_path: Path, simulator: Callable[[str], Path]) -> None:
    """The simulated NPU against the model as transformers reads it from the same directory."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install rk-gemma[eval]")
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install rk-gemma[eval]")
    config = {**GEMMA2, "query_pre_attn_scalar": 16, "architectures": ["Gemma2ForCausalLM"]}
    source = write_checkpoint(tmp_path / "src", config, with_head(config), "F32")
    export(source, tmp_path / "out", Options("sim", "fp16", "none"))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    )
    prompt = [2, 5, 9, 77, 100, 41]
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(16):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert answered(tmp_path / "out", prompt, simulator("1.3.0")) == ids[len(prompt) :]


def answered(bundle: Path, prompt: list[int], library: Path) -> list[int]:
    command = [sys.executable, "-c", "from rk_gemma.cli import main; main()", "run", str(bundle), "--ids"]
    done = subprocess.run(
        [*command, ",".join(map(str, prompt)), "--max-tokens", "16", "--temperature", "0", "--json"],
        capture_output=True, check=True, timeout=60,
        env={**environment(), "RK_GEMMA_LIBRKLLMRT": os.fspath(library)},
    )  # fmt: skip
    return list(json.loads(done.stdout)["ids"])
