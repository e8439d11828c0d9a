"""Fixtures that several rooms share. The header says which libraries this run uses."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sharing import exclusive, run_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs so, and their children inherit it; tests of Ctrl-C need it back.
    signal.signal(signal.SIGINT, signal.default_int_handler)

try:
    import hypothesis
except ModuleNotFoundError:  # tests that need it skip
    pass
else:  # the same examples in every run: a failure belongs to the change that caused it
    hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
    hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data" / "gemma"
TOKENIZER_HINT = "set RK_GEMMA_TOKENIZER to Gemma's tokenizer.model (Gemma Terms of Use: not in this repository)"


def simulator_path(layout: str) -> Path:
    """Where `make simulator` puts the library for this machine."""
    return ROOT / "build" / "simulator" / platform.machine() / layout / "librkllmrt.so"


def tokenizer_path() -> Path | None:
    """Gemma's own tokenizer, where somebody has it."""
    places = [os.environ.get("RK_GEMMA_TOKENIZER"), ROOT.parent / "shared/facts/gemma/tokenizer.model"]
    return next((Path(p) for p in places if p and Path(p).is_file()), None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: not item.get_closest_marker("emulated"))


def pytest_report_header() -> list[str]:
    """What is real in this run, and how to get the rest."""
    built = sorted(folder.name for folder in simulator_path("1.3.0").parents[1].glob("1.*"))
    return [
        f"rk-gemma: {platform.machine()}, simulator {', '.join(built) or 'not built (make simulator)'}",
        f"rk-gemma: Gemma's tokenizer {'found' if tokenizer_path() else f'not found ({TOKENIZER_HINT})'}",
    ]


@pytest.fixture(scope="session")
def simulator() -> Callable[[str], Path]:
    """Path of the simulated library of a layout; skips where it is not built."""

    def path(layout: str = "1.3.0") -> Path:
        found = simulator_path(layout)
        if not found.exists():
            pytest.skip(f"{found} is not built; run: make simulator")
        return found

    return path


@pytest.fixture(scope="session")
def gemma_tokenizer() -> Path:
    """Gemma's tokenizer.model; skips, saying how to un-skip."""
    found = tokenizer_path()
    if found is None:
        pytest.skip(TOKENIZER_HINT)
    return found


def bundle_name(checkpoint: Path, dtype: str = "w8a8", cpu: str = "Q8_0", npu: str = "sim") -> str:
    """Name of a bundle that was exported beforehand."""
    return f"{checkpoint.parent.name}-{checkpoint.name}-{dtype}-{cpu}-{npu}"


@pytest.fixture(scope="session")
def make_bundle(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_bundle(checkpoint, dtype, cpu) exports once per run, whichever worker asks first.

    Where RK_GEMMA_TEST_BUNDLES names a directory, bundles are taken from it: under emulation nothing is exported.
    """
    given = os.environ.get("RK_GEMMA_TEST_BUNDLES")
    home = Path(given) if given else run_folder(pytestconfig, tmp_path_factory) / "bundles"

    def make(checkpoint: Path, dtype: str = "w8a8", cpu: str = "Q8_0", npu: str = "sim") -> Path:
        target = home / bundle_name(checkpoint, dtype, cpu, npu)
        if given:
            return target
        from rk_gemma.export.pipeline import Options, export

        with exclusive(home / f"{target.name}.lock"):
            if not target.exists():  # an export is there whole or not at all
                export(checkpoint, target, Options(npu, dtype, cpu))
        return target

    return make


@pytest.fixture(scope="session")
def demo_bundle(make_bundle: Callable[..., Path]) -> Path:
    """The demo checkpoint as w8a8 and Q8_0."""
    return make_bundle(ROOT / "demo" / "checkpoint")


@pytest.fixture(scope="session")
def tiny_bundle(make_bundle: Callable[..., Path]) -> Path:
    """The random Gemma 2 of the golden data as fp16 and F16; ids only."""
    return make_bundle(DATA / "tiny-gemma2", dtype="fp16", cpu="F16")


@pytest.fixture
def cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `rk-gemma ARGS` as a process of its own; returns the finished process with text streams."""

    def call(
        *args: object, env: Mapping[str, str] | None = None, stdin: str | bytes = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [*CLI, *map(str, args)],
            input=raw,
            capture_output=True,
            env=cli_environment(env),
            timeout=timeout,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")
        )

    return call


CLI = [sys.executable, "-c", "from rk_gemma.cli import main; main()"]


def cli_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a test's process: this tree's packages, no library but the one a test names."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RK_GEMMA_")}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "runtime"), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": paths, **(extra or {})}
