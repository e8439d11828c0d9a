"""The checkpoint that the toolkit is given: what was checked, in a spelling that every transformers reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpointkit import plain, write_any
from hosttools import DATA, GEMMA1, GEMMA2, random_weights, write_checkpoint, write_shards
from toolkitkit import DEMO

from rk_gemma.checkpoint import Checkpoint
from rk_gemma.export.model import open_model
from rk_gemma.export.plain import linkable, plain_bytes, write_plain
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = {**GEMMA2, "vocab_size": 2048}
WEIGHTS = random_weights(CONFIG)
TABLE = WEIGHTS["model.embed_tokens.weight"]


def torch_wrote(weights: dict[str, Any], dtype: str = "BF16", **config: Any) -> Callable[[Path], Any]:
    return lambda folder: write_checkpoint(folder, {**CONFIG, **config}, weights, dtype)


def sharded(folder: Path) -> None:
    write_checkpoint(folder, CONFIG, WEIGHTS)
    write_shards(folder, WEIGHTS)


# How each is written, and the files that can be linked.
SOURCES: dict[str, tuple[Callable[[Path], Any], int]] = {
    "plain": (torch_wrote(WEIGHTS), 1),
    "float32": (torch_wrote(WEIGHTS, "F32"), 1),
    "code": (torch_wrote(WEIGHTS, auto_map={"AutoModel": "modeling_x.X"}), 1),
    "leftover config": (torch_wrote(WEIGHTS, quantization_config={"load_in_4bit": True}), 1),
    "equal head": (torch_wrote({**WEIGHTS, "lm_head.weight": TABLE}), 1),
    "shards": (sharded, 3),
    "nobody says who wrote it": (lambda p: write_any(p, plain(WEIGHTS), **CONFIG), 0),
    "compiled": (torch_wrote({f"_orig_mod.{n}": w for n, w in WEIGHTS.items()}), 0),
    "bare": (torch_wrote({n.removeprefix("model."): w for n, w in WEIGHTS.items()}), 0),
    "own head": (torch_wrote({**WEIGHTS, "lm_head.weight": TABLE * np.float32(2)}), 0),
}


def made(name: str, tmp_path: Path) -> tuple[Checkpoint, Path]:
    """Write a source with traps beside it, and its plain form."""
    source, target = tmp_path / "src", tmp_path / "plain"
    SOURCES[name][0](source)
    (source / "tokenizer.model").write_bytes((DEMO / "tokenizer.model").read_bytes())
    (source / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "x.X"}, "extra": 1}')
    (source / "modeling_x.py").write_text("raise SystemExit")
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    model = open_model(source, 0, "auto", lambda line: None)
    assert linkable(model.checkpoint) is bool(SOURCES[name][1])
    write_plain(target, model)
    return model.checkpoint, target


@pytest.mark.parametrize("name", SOURCES)
def test_it_holds_the_same_model_and_nothing_else(name: str, tmp_path: Path) -> None:
    source, target = made(name, tmp_path)
    texts = {"config.json", "tokenizer.model", "tokenizer_config.json"}
    count = SOURCES[name][1]
    weights = {"model.safetensors"} if count < 2 else {
        "model.safetensors.index.json", *(f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1))
    }  # fmt: skip
    assert {p.name for p in target.iterdir()} == texts | weights
    assert sum(p.is_symlink() for p in target.iterdir()) == count
    again = Checkpoint.open(target)
    assert (
        set(again.tensors) == set(source.tensors) and again.spec.shape == Checkpoint.open(tmp_path / "src").spec.shape
    )
    assert all(np.array_equal(source.tensors[n].read(), again.tensors[n].read()) for n in source.tensors)
    config = json.loads((target / "config.json").read_text())
    assert config["tie_word_embeddings"] is (name != "own head")
    assert not {"auto_map", "quantization_config"} & set(config)
    assert {"rope_theta", "torch_dtype", "hidden_activation", "architectures"} <= set(config)
    settings = json.loads((target / "tokenizer_config.json").read_text())
    assert "auto_map" not in settings and settings["extra"] == 1 and settings["tokenizer_class"] == "GemmaTokenizer"
    written = (target / "model.safetensors").stat().st_size if not SOURCES[name][1] else 0
    assert abs(written - plain_bytes(source)) < 20_000


def test_weights_that_are_plain_are_linked(tmp_path: Path) -> None:
    _, target = made("plain", tmp_path)
    assert (target / "model.safetensors").resolve() == (tmp_path / "src" / "model.safetensors").resolve()


@pytest.mark.parametrize("kind", [GEMMA1, GEMMA2])
def test_a_model_without_text_cannot_be_given(kind: dict[str, Any], tmp_path: Path) -> None:
    write_any(tmp_path / "src", plain(random_weights(kind)), **kind)
    with pytest.raises(CheckpointError, match=r"copy tokenizer\.model"):
        write_plain(tmp_path / "plain", open_model(tmp_path / "src", 0, "auto", lambda line: None))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-gemma-bnb8", "tiny-gemma1-bnb8"])
def test_transformers_reads_it_as_bitsandbytes_meant(name: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="pip install 'rk-gemma[eval]'")
    transformers = pytest.importorskip("transformers", reason="pip install 'rk-gemma[eval]'")
    golden = np.load(DATA / name / "golden.npz")
    from rk_gemma.export.plain import _config, _put, write_weights

    checkpoint = Checkpoint.open(DATA / name)
    _put(tmp_path / "config.json", _config(checkpoint))
    write_weights(tmp_path / "model.safetensors", checkpoint, lambda done: None)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    )
    for i in range(8):
        with torch.no_grad():
            rows = model(torch.tensor([golden[f"prompt_{i}"].tolist()])).logits[0].numpy()
        assert np.abs(rows - golden[f"logits_dequant_{i}"]).max() < 5e-4
