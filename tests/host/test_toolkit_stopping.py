"""Whenever and however an export or a setup is stopped, no process and no file stays."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hosttools import COMMAND, environment
from standin import build_wheel
from toolkitkit import alive, checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow  # seconds, for what rarely changes

PATIENCE_S = 60.0
MARK = "RK_GEMMA_TEST_MARK"


def until(done: Callable[[], object]) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def started(*arguments: object, mark: str, home: str) -> subprocess.Popen[bytes]:
    """Start the command line; everything that it starts can be found by `mark`."""
    env = {**environment(), MARK: mark, "RK_GEMMA_HOME": home}
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def below(pid: int) -> set[int]:
    """Find a process's descendants of now."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
    found = {pid}
    while more := {p for p, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("step", ["build", pytest.param("load", marks=pytest.mark.slow),
                                  pytest.param("export", marks=pytest.mark.slow)])  # fmt: skip
def test_a_stopped_export_leaves_no_process_and_no_file(
    step: str, number: signal.Signals, tmp_path: Path, toolkit: Callable[..., str]
) -> None:
    name, touch = toolkit(), tmp_path / "touch"
    source = checkpoint(tmp_path / "m", hang=step, touch=str(touch))
    process = started("export", source, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", name,
                      mark=str(tmp_path), home=os.environ["RK_GEMMA_HOME"])  # fmt: skip
    until(lambda: touch.exists() and len(touch.read_text().split()) == 2)
    pids = [int(word) for word in touch.read_text().split()]  # the toolkit, and a child that has left its group
    process.send_signal(number)
    output = process.communicate(timeout=PATIENCE_S)[0].decode()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number], output
    until(lambda: not any(map(alive, pids)))
    until(lambda: sorted(p.name for p in tmp_path.iterdir()) == ["m", "touch"])


def moments(seed: int, count: int) -> Iterator[float]:
    return (random.Random(seed + n).uniform(0.0, 1.0) for n in range(count))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ten_random_moments_of_an_export(number: signal.Signals, tmp_path: Path, toolkit: Callable[..., str]) -> None:
    name = toolkit()
    source = checkpoint(tmp_path / "m")
    ask = ("export", source, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", name, "--cpu", "none")
    home = os.environ["RK_GEMMA_HOME"]
    begun = time.monotonic()
    whole = started(*ask, mark="", home=home)
    assert (whole.communicate(timeout=PATIENCE_S), whole.returncode)[1] == 0
    length = time.monotonic() - begun
    for share in moments(7, 10):
        subprocess.run(["rm", "-rf", str(tmp_path / "b")], check=True)
        process = started(*ask, mark=str(tmp_path), home=home)
        time.sleep(share * length)
        process.send_signal(number)
        process.communicate(timeout=PATIENCE_S)
        until(lambda: not list(marked(str(tmp_path))))
        until(lambda: not (tmp_path / ".b.partial" / "toolkit").exists())
        assert number is signal.SIGKILL or not (tmp_path / ".b.partial").exists()
    subprocess.run(["rm", "-rf", str(tmp_path / "b")], check=True)
    again = started(*ask, mark="", home=home)
    assert (again.communicate(timeout=PATIENCE_S), again.returncode)[1] == 0
    assert not (tmp_path / ".b.partial").exists()


def marked(mark: str) -> Iterator[int]:
    """Find living processes that know the test's folder: by their environment, or by their arguments."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            known = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in known and int(folder.name) != os.getpid() and alive(int(folder.name)):
            yield int(folder.name)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_setup_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    home, touch = tmp_path / "home", tmp_path / "touch"
    broken = f"import time; open({str(touch)!r}, 'w').close(); time.sleep(600)"
    wheel = build_wheel(tmp_path, "1.2.3", broken=broken)
    process = started("toolkit", "setup", "--wheel", wheel, "--no-pins", mark=str(tmp_path), home=str(home))
    until(touch.exists)
    there = below(process.pid)
    assert len(there) >= 3
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == (130 if number is signal.SIGINT else -9)
    until(lambda: not any(map(alive, there)))
    until(lambda: not list((home / "toolkits").iterdir()))


def test_a_killed_guard_takes_the_toolkit_along(tmp_path: Path, toolkit: Callable[..., str]) -> None:
    name, touch = toolkit(), tmp_path / "touch"
    source = checkpoint(tmp_path / "m", hang="build", touch=str(touch))
    process = started("export", source, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", name,
                      mark=str(tmp_path), home=os.environ["RK_GEMMA_HOME"])  # fmt: skip
    until(lambda: touch.exists() and len(touch.read_text().split()) == 2)
    driver, child = (int(word) for word in touch.read_text().split())
    guard = int(Path(f"/proc/{driver}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    until(lambda: not alive(driver))
    os.kill(child, signal.SIGKILL)  # nobody but the guard knew of it
    output = process.communicate(timeout=PATIENCE_S)[0].decode()
    assert process.returncode == 1, output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "touch"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_while_the_checkpoint_is_written_out(
    number: signal.Signals, tmp_path: Path, toolkit: Callable[..., str]
) -> None:
    """Before the toolkit begins, or as it does: writing plain weights may take minutes."""
    name = toolkit()
    source = checkpoint(tmp_path / "m", hang="load", touch=str(tmp_path / "m" / "touch"))
    process = started("export", source, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", name,
                      mark=str(tmp_path), home=os.environ["RK_GEMMA_HOME"])  # fmt: skip
    until((tmp_path / ".b.partial" / "toolkit").exists)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    until(lambda: [p.name for p in tmp_path.iterdir()] == ["m"])
