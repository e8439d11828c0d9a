"""Builds the simulator once, and hands out its layouts and small model files."""

from __future__ import annotations

import ctypes as C
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from npukit import kmsg, sim, weights  # noqa: F401 (fixtures)
from simlib import Abi, Handle
from simwriter import Checkpoint, load_checkpoint, printed, read_vocabulary, synthetic, write_checkpoint

from tests.sharing import build_simulator as make

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).resolve().parents[2]
SIMULATOR = ROOT / "board" / "simulator"
LAYOUTS = ("1.1.0", "1.2.0", "1.2.1b1", "1.2.1", "1.3.0", "1.3.1")
TINY = ("tiny-gemma1", "tiny-gemma2")
STAMP = re.compile(r"\[\d\d:\d\d:\d\d\.\d{3}\] ")
DEMO_TOKENIZER = ROOT / "demo" / "checkpoint" / "tokenizer.model"


@pytest.fixture(scope="session")
def built() -> Path:
    """build/simulator of this repository, up to date."""
    make()
    return ROOT / "build" / "simulator"


@pytest.fixture(scope="session")
def abis(built: Path) -> dict[str, Abi]:
    folder = built / platform.machine()
    return {v: Abi(SIMULATOR / "abi" / f"rkllm-{v}.json", folder / v / "librkllmrt.so") for v in LAYOUTS}


@pytest.fixture
def abi(abis: dict[str, Abi]) -> Abi:
    return abis["1.3.0"]


@pytest.fixture(scope="session")
def golden() -> dict[str, Mapping[str, np.ndarray]]:
    return {name: np.load(ROOT / "tests" / "data" / "gemma" / name / "golden.npz") for name in TINY}


@pytest.fixture(scope="session")
def checkpoints() -> dict[str, Checkpoint]:
    tiny = {name: load_checkpoint(ROOT / "tests" / "data" / "gemma" / name) for name in TINY}
    return {**tiny, "synthetic": synthetic()}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Checkpoint]) -> Callable[[str, str], Path]:
    """model(name, dtype): a model.sim, written once per session."""
    folder = tmp_path_factory.mktemp("models")

    def write(name: str, dtype: str) -> Path:
        path = folder / f"{name}-{dtype}.sim"
        return path if path.exists() else write_checkpoint(path, checkpoints[name], dtype)

    return write


def words_of_the_demo() -> Checkpoint:
    """A random model with the demo's tokenizer."""
    words = synthetic(hidden=32, ffn=64, layers=2, vocab=2048, heads=2, head_dim=16)
    words.vocabulary = read_vocabulary(DEMO_TOKENIZER, 2048)
    words.pieces = printed(words.vocabulary)
    words.overrides = {"eos": "1,107", "context": 512}
    return words


@pytest.fixture(scope="session")
def demo_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("words") / "demo.sim", words_of_the_demo(), "w8a8")


@pytest.fixture(scope="session")
def demo_float(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("words") / "float.sim", words_of_the_demo(), "fp16")


@pytest.fixture
def tiny(model: Callable[[str, str], Path]) -> Path:
    return model("tiny-gemma2", "w8a8")


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """profile("a: 1; b: 2") is what handles opened from now on read under `simulator`."""

    def write(text: str) -> Path:
        path = tmp_path / f"profile-{abs(hash(text))}.yaml"
        path.write_text("simulator:\n" + "".join(f"  {line.strip()}\n" for line in text.split(";")))
        monkeypatch.setenv("RK_GEMMA_SIM_PROFILE", str(path))
        return path

    return write


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The lines of both streams since the last call; the library's stdout is buffered by stdio."""

    def lines() -> list[str]:
        C.CDLL(None).fflush(None)
        out = capfd.readouterr()
        return [STAMP.sub("", line) for line in (out.out + out.err).splitlines()]

    return lines


@pytest.fixture
def prompt_ids(said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """prompt_ids(handle, given, ...): the ids that the library says it computes for an input; -1 for a row."""
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "2")

    def ids(handle: Handle, given: Any, **options: Any) -> list[int]:
        said()
        assert handle.run(given, **options).returned == 0
        (line,) = (line for line in said() if line.startswith("I rkllm: prompt tokens: "))
        listed, total = line.removeprefix("I rkllm: prompt tokens: ").split(", total: ")
        found = [-1 if word == "embed" else int(word) for word in listed.split(", ")]
        assert len(found) == int(total)
        return found

    return ids


@pytest.fixture
def outside(built: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs child.py in a process of its own: one run, with a profile, its streams apart."""

    def run(
        model: Path, *, profile: str = "", layout: str = "1.3.0", arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None, timeout: float = 30,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        (tmp_path / "profile.yaml").write_text(profile)
        library = built / platform.machine() / layout / "librkllmrt.so"
        command = [sys.executable, str(Path(__file__).with_name("child.py")), str(library), str(model), *arguments]
        extra = {"RK_GEMMA_SIM_PROFILE": str(tmp_path / "profile.yaml"), **(environment or {})}
        return subprocess.run(
            command, env={**os.environ, **extra}, capture_output=True, text=True, timeout=timeout
        )  # fmt: skip

    return run
