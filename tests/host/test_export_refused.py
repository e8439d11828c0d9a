"""What `rk-gemma export` refuses: one line, exit code 3 (2 for usage), nothing written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hosttools import DATA, GEMMA2, ROOT, errors_of, random_weights, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TINY = DATA / "tiny-gemma2"
DEMO_TOKENIZER = ROOT / "demo" / "checkpoint" / "tokenizer.model"


def other_family(source: Path) -> None:
    (source / "config.json").write_text(json.dumps({**GEMMA2, "model_type": "llama"}))


def tokenizer_too_large(source: Path) -> None:
    if not DEMO_TOKENIZER.exists():
        pytest.skip(f"no {DEMO_TOKENIZER}; run: python -m demo.tokenizer")
    (source / "tokenizer.model").write_bytes(DEMO_TOKENIZER.read_bytes())


def tokenizer_damaged(source: Path) -> None:
    (source / "tokenizer.model").write_bytes(b"not protobuf")


def tokenizer_empty(source: Path) -> None:
    (source / "tokenizer.model").write_bytes(b"")


def last_weight_is_nan(source: Path) -> None:
    weights = random_weights(GEMMA2)
    weights["model.norm.weight"][-1] = float("nan")
    write_checkpoint(source, GEMMA2, weights)


def truncated(source: Path) -> None:
    raw = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(raw[: len(raw) // 2])


def no_config(source: Path) -> None:
    (source / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [(other_family, "llama"), (tokenizer_too_large, "128 rows"), (tokenizer_damaged, "tokenizer.model"),
     (tokenizer_empty, "tokenizer.model"), (last_weight_is_nan, "model.norm.weight holds NaN"),
     (truncated, "truncated"), (no_config, "no config.json")],
)  # fmt: skip
def test_bad_checkpoint(damage: Callable[[Path], None], says: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    damage(write_checkpoint(tmp_path / "src"))
    done = main("export", tmp_path / "src", "-o", tmp_path / "b")
    assert (done.code, done.stdout) == (3, "")
    assert says in errors_of(done.stderr)[0]
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


@pytest.mark.parametrize("source", ["nothing", "", "x" * 300, "a\nb"])
def test_no_checkpoint(source: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    done = main("export", tmp_path / source, "-o", tmp_path / "b")
    assert (done.code, len(errors_of(done.stderr)), len(done.stderr.splitlines())) == (3, 1, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["directory", "file", "link", "dangling link"])
def test_target_exists(kind: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    target = tmp_path / "b"
    if kind == "directory":
        target.mkdir()
    elif kind == "file":
        target.touch()
    else:
        target.symlink_to("." if kind == "link" else "nowhere")
    done = main("export", TINY, "-o", target)
    assert (done.code, len(done.stderr.splitlines())) == (3, 1)
    assert "exists" in errors_of(done.stderr)[0]
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("target", ["none/b", "file/b", "x" * 250, "x" * 300])
def test_target_that_cannot_be(target: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    (tmp_path / "file").touch()
    done = main("export", TINY, "-o", tmp_path / target)
    assert (done.code, len(errors_of(done.stderr))) == (3, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "options",
    [["--dtype", "int4"], ["--npu", "rkllm"], ["--cpu", "Q4_K"], ["--npu", "none", "--cpu", "none"],
     ["--dtype", "w8a8_g512"], ["--unknown"], ["--dtype"], ["another"]],
)  # fmt: skip
def test_usage(options: list[str], tmp_path: Path, main: Callable[..., Any]) -> None:
    done = main("export", TINY, "-o", tmp_path / "b", *options)
    assert (done.code, done.stdout, len(errors_of(done.stderr))) == (2, "", 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("args", [["export"], ["export", TINY], ["inspect"], ["no-such-verb"]])
def test_usage_without_arguments(args: list[object], main: Callable[..., Any]) -> None:
    done = main(*args)
    assert (done.code, done.stdout, len(errors_of(done.stderr))) == (2, "", 1)
