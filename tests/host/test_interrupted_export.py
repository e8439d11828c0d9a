"""Signals and rivals in the middle of an export. A stopped process (SIGSTOP) makes each moment last."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hosttools import GEMMA2, errors_of, start, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LARGE = {**GEMMA2, "vocab_size": 12_000, "hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
         "head_dim": 128, "intermediate_size": 4096}  # fmt: skip
MB = 1 << 20

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 MB of bfloat16: an export takes more than half a second."""
    return write_checkpoint(tmp_path_factory.mktemp("large") / "src", LARGE)


@pytest.fixture(scope="session")
def undisturbed(large: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What an export that nobody disturbs notes about its files."""
    target = tmp_path_factory.mktemp("undisturbed") / "out"
    return finished(start("export", large, "-o", target), target)


@pytest.fixture
def begin(large: Path, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """begin() starts an export of the large checkpoint to tmp_path/out; what still runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def call() -> subprocess.Popen[bytes]:
        started.append(start("export", large, "-o", tmp_path / "out"))
        return started[-1]

    yield call
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finished(process: subprocess.Popen[bytes], target: Path) -> Any:
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert [p.name for p in target.parent.iterdir()] == [target.name]
    return yaml.safe_load((target / "bundle.yaml").read_text())["files"]


def wait_for(process: subprocess.Popen[bytes], path: Path, size: int) -> None:
    """Until a growing file has a size; returns with the process stopped there."""
    while not (path.exists() and path.stat().st_size >= size):
        try:
            code = process.wait(timeout=0.002)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"the export ended ({code}) before {path.name} had {size} bytes")
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


def signalled(process: subprocess.Popen[bytes], number: int) -> tuple[int, str]:
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=30)
    assert out == b""
    assert b"Traceback" not in err
    return process.returncode, err.decode()


def last(stderr: str) -> str:
    return stderr.splitlines()[-1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_in_the_first_file(
    number: int, code: int, begin: Callable[[], subprocess.Popen[bytes]], tmp_path: Path, undisturbed: Any
) -> None:
    """What is written of it is kept, and gone on with."""
    partial = tmp_path / ".out.partial"
    process = begin()
    wait_for(process, partial / "model.sim", 20 * MB)
    returned, err = signalled(process, number)
    assert returned == code
    assert not errors_of(err)
    found = re.fullmatch(r"rk-gemma: stopped; ([\d.]+) MB are kept in (.*); the same command goes on .*", last(err))
    assert found and found[2] == str(partial) and 18 < float(found[1]) < 45, err
    assert {p.name for p in partial.iterdir()} == {"export.json", "model.sim", "model.sim.at"}
    assert json.loads((partial / "model.sim.at").read_text())["blocks"] > 1
    inode = (partial / "model.sim").stat().st_ino
    assert finished(begin(), tmp_path / "out") == undisturbed
    assert (tmp_path / "out" / "model.sim").stat().st_ino == inode


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_goes_on_where_it_stopped(
    number: int, code: int, begin: Callable[[], subprocess.Popen[bytes]], tmp_path: Path, undisturbed: Any
) -> None:
    partial = tmp_path / ".out.partial"
    process = begin()
    wait_for(process, partial / "model.gguf", 1 * MB)
    returned, err = signalled(process, number)
    assert returned == code
    assert [p.name for p in tmp_path.iterdir()] == [".out.partial"]
    assert number == signal.SIGKILL or f"are kept in {partial}; the same command goes on" in last(err)
    names = {p.name for p in partial.iterdir()}
    assert {"export.json", "model.sim"} <= names <= {"export.json", "model.sim", "model.gguf", "model.gguf.at"}
    before = (partial / "model.sim").stat()

    files = finished(begin(), tmp_path / "out")
    after = (tmp_path / "out" / "model.sim").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert files == undisturbed


@pytest.mark.slow
def test_killed_in_the_first_file(
    begin: Callable[[], subprocess.Popen[bytes]], tmp_path: Path, undisturbed: Any
) -> None:
    process = begin()
    wait_for(process, tmp_path / ".out.partial" / "model.sim", 4 * MB)
    assert signalled(process, signal.SIGKILL)[0] == -9
    assert not (tmp_path / "out").exists()
    assert finished(begin(), tmp_path / "out") == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("change", ["another option", "another checkpoint"])
def test_remains_of_another_export_are_not_used(
    change: str, large: Path, begin: Callable[[], subprocess.Popen[bytes]], tmp_path: Path, undisturbed: Any
) -> None:
    process = begin()
    wait_for(process, tmp_path / ".out.partial" / "model.gguf", 1 * MB)
    signalled(process, signal.SIGKILL)
    sizes = undisturbed["model.sim"]["bytes"]
    if change == "another option":
        files = finished(start("export", large, "-o", tmp_path / "out", "--dtype", "fp16"), tmp_path / "out")
        assert files["model.sim"]["bytes"] > 1.5 * sizes
    else:
        small = write_checkpoint(tmp_path.parent / f"{tmp_path.name}-small")
        files = finished(start("export", small, "-o", tmp_path / "out"), tmp_path / "out")
        assert files["model.sim"]["bytes"] < sizes / 10


def test_two_exports_to_one_place(
    begin: Callable[[], subprocess.Popen[bytes]], tmp_path: Path, undisturbed: Any
) -> None:
    first = begin()
    wait_for(first, tmp_path / ".out.partial" / "model.sim", 1 * MB)
    second = begin()
    out, err = second.communicate(timeout=30)
    assert (second.returncode, out) == (3, b"")
    assert "another export is writing here" in errors_of(err.decode())[0]
    first.send_signal(signal.SIGCONT)
    assert finished(first, tmp_path / "out") == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_at_many_moments(
    number: int, begin: Callable[[], subprocess.Popen[bytes]], tmp_path: Path, undisturbed: Any
) -> None:
    """Interrupted again and again on its way: never half a bundle, and in the end the whole one."""
    steps = [("model.sim", size * MB) for size in (0, 9, 20)] + [("model.gguf", size * MB) for size in (0, 12)]
    for name, size in steps:
        process = begin()
        wait_for(process, tmp_path / ".out.partial" / name, size)
        returned, err = signalled(process, number)
        assert returned in {-number, 128 + number}
        assert number == signal.SIGKILL or last(err).startswith("rk-gemma: stopped; "), err
        assert {p.name for p in tmp_path.iterdir()} <= {".out.partial"}
    assert finished(begin(), tmp_path / "out") == undisturbed
