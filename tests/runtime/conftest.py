"""Fixtures of the runtime's tests: profiles, assistants that are closed, a temporary directory to watch."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from answerkit import QUESTIONS, Wanted, ask, kill_children
from lifekit import Program
from runtimekit import DATA, FAMILIES, ROOT, switches, write_profile

from rk_gemma_runtime.assistant import Assistant
from rk_gemma_runtime.bundle import Bundle
from rk_gemma_runtime.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np


@pytest.fixture(scope="session")
def golden() -> dict[str, Mapping[str, np.ndarray]]:
    """transformers' numbers for the tiny checkpoints."""
    np = pytest.importorskip("numpy")
    return {name: np.load(DATA / name / "golden.npz") for name in FAMILIES}


@pytest.fixture(scope="session")
def tiny_bundles(make_bundle: Callable[..., Path]) -> Callable[[str], Path]:
    """The bundle of a tiny checkpoint as fp16 and F16; ids only."""
    return lambda name: make_bundle(DATA / name, dtype="fp16", cpu="F16")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory that temporary files of this test go to; no setting of the person running it counts."""
    folder = Path(tempfile.mkdtemp(prefix="t"))  # short: a Unix socket's name may have 107 characters
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("RK_GEMMA_LIBRKLLMRT", raising=False)
    monkeypatch.delenv("RK_GEMMA_LIBRKLLMRT_LAYOUT", raising=False)
    monkeypatch.delenv("RK_GEMMA_SIM_PROFILE", raising=False)
    if switches():
        monkeypatch.setenv("RK_GEMMA_SIM_PROFILE", str(write_profile(tmp_path / "switches.yaml")))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """profile(key=value, ...): the board that workers started from now on, here and below, are on."""

    def use(**keys: object) -> Path:
        path = write_profile(tmp_path / "profile.yaml", **keys)
        monkeypatch.setenv("RK_GEMMA_SIM_PROFILE", str(path))
        return path

    return use


@pytest.fixture
def board(simulator: Callable[[str], Path], tmp_path: Path) -> Callable[..., dict[str, str]]:
    """board(layout, key=value, ...): environment of a command on such a board."""

    def environment(layout: str = "1.3.0", **keys: object) -> dict[str, str]:
        path = write_profile(tmp_path / "board.yaml", **keys)
        return {"RK_GEMMA_LIBRKLLMRT": str(simulator(layout)), "RK_GEMMA_SIM_PROFILE": str(path)}

    return environment


@pytest.fixture
def spawn(pytestconfig: pytest.Config) -> Callable[..., subprocess.Popen[bytes]]:
    """spawn(ARGS, env, streams): `rk-gemma ARGS` as a process of its own, not waited for."""
    shared = pytestconfig.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    assert shared is not None

    def start(*args: object, env: Mapping[str, str], **streams: Any) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*shared.CLI, *map(str, args)], env=shared.cli_environment(env), **(pipes | streams))

    return start


@pytest.fixture
def assistant(simulator: Callable[[str], Path]) -> Iterator[Callable[..., Assistant]]:
    """assistant(bundle, backend, layout, on_notice, field of Options=value ...): closed at the end of the test."""
    with ExitStack() as stack:

        def make(
            bundle: Path,
            backend: Any = "npu",
            layout: str = "1.3.0",
            on_notice: Any = None,
            on_event: Any = None,
            **rest: Any,
        ) -> Assistant:
            # One thread is the fastest for models this small, and does not mind a busy machine.
            options = Options(**{"backend": backend, "librkllmrt": str(simulator(layout)), "threads": 1, **rest})
            return stack.enter_context(Assistant(Bundle.open(bundle), options, on_notice, None, on_event))

        yield make


@pytest.fixture(scope="session")
def twin_bundle(make_bundle: Callable[..., Path]) -> Path:
    """The demo checkpoint as fp16 and F16: both backends give the same greedy answers, in text."""
    return make_bundle(ROOT / "demo" / "checkpoint", dtype="fp16", cpu="F16")


@pytest.fixture(scope="session")
def wanted(twin_bundle: Path) -> Wanted:
    """The ids of the greedy answers to QUESTIONS, when nothing disturbs them."""
    with Assistant.open(twin_bundle, backend="cpu", threads=1) as gemma:
        return {question: ask(gemma, question) for question in QUESTIONS}


@pytest.fixture
def opened(twin_bundle: Path, simulator: Callable[[str], Path]) -> Iterator[Callable[..., Assistant]]:
    """opened(backend, layout, option=value ...): the twin bundle's assistant, closed at the end of the test."""
    with ExitStack() as stack:

        def make(backend: Any = "npu", layout: str = "1.3.0", **rest: Any) -> Assistant:
            options = {"backend": backend, "librkllmrt": str(simulator(layout)), "threads": 1, **rest}
            return stack.enter_context(Assistant.open(twin_bundle, **options))

        yield make
    kill_children()


@pytest.fixture
def start(twin_bundle: Path, simulator: Callable[[str], Path], tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """start(source, first=source, env=variables, cwd=folder, key=value ...): a program with lifekit's prelude on such
    a board; ended with all below it at the end of the test."""
    with ExitStack() as stack:

        def run(source: str, first: str = "", env: Any = None, cwd: str | None = None, **keys: object) -> Program:
            given = {
                "LIFE_BUNDLE": str(twin_bundle),
                "LIFE_LIBRARY": str(simulator("1.3.0")),
                "RK_GEMMA_SIM_PROFILE": str(write_profile(tmp_path / "life.yaml", **keys)),
                **(env or {}),
            }
            program = Program(source, given, tmp_path, first, cwd=cwd)
            stack.callback(program.stop)
            return program

        yield run


@pytest.fixture
def cli_paths(pytestconfig: pytest.Config) -> dict[str, str]:
    """The environment of a Python program of a test: this tree's packages, and the test's own board."""
    shared = pytestconfig.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    assert shared is not None
    own = {k: v for k, v in os.environ.items() if k.startswith("RK_GEMMA_SIM")}
    environment: dict[str, str] = shared.cli_environment(own)
    return environment
