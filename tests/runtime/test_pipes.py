"""A reader that has gone, as in `rk-gemma plan | true`: no traceback, no exit code of the interpreter's own."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from runtimekit import patient

from tests.conftest import CLI, ROOT, cli_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Ask = Callable[..., subprocess.CompletedProcess[bytes]]

pytestmark = pytest.mark.slow  # seconds, for what rarely changes

CHECKPOINT = ROOT / "demo" / "checkpoint"
LOG = b"E rkllm: failed to malloc npu memory, size: 232128512\n"
# Every verb, asked for something that it prints; words in capitals stand for files of the test.
ASKED = {
    "": ["--help"],
    "version": ["--version"],
    "plan": ["plan"],
    "doctor": ["doctor"],
    "inspect": ["inspect", "BUNDLE"],
    "explain": ["explain", "-"],
    "lib": ["lib", str(CHECKPOINT), "--json"],
    "tokens": ["tokens", "BUNDLE", "--text", "Hello"],
    "run": ["run", "BUNDLE", "Hello", "--backend", "cpu", "--max-tokens", "2"],
    "chat": ["chat", "BUNDLE", "--backend", "cpu", "--max-tokens", "2"],
    "export": ["export", str(CHECKPOINT), "-o", "OUTPUT", "--npu", "none"],
    "eval": ["eval", "--help"],
    "pull": ["pull", "--help"],
    "pack": ["pack", "--help"],
    "toolkit": ["toolkit", "--help"],
}


@pytest.fixture
def nobody() -> Iterator[int]:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.fixture
def ask(demo_bundle: Path, tmp_path: Path) -> Ask:
    """ask(verb, streams): run the verb to its end. Python buffers, as it does for everybody."""

    def run(verb: str, **streams: int) -> subprocess.CompletedProcess[bytes]:
        words = {"BUNDLE": str(demo_bundle), "OUTPUT": str(tmp_path / "new")}
        command = [*CLI, *(words.get(word, word) for word in ASKED[verb])]
        env = {k: v for k, v in cli_environment({"OMP_NUM_THREADS": "1"}).items() if k != "PYTHONUNBUFFERED"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        return subprocess.run(command, input=LOG, env=env, timeout=patient(60), check=False, **pipes)  # type: ignore[call-overload,no-any-return]

    return run


@pytest.mark.parametrize("verb", ASKED)
def test_nobody_reads_the_answer(verb: str, ask: Ask, nobody: int) -> None:
    done = ask(verb, stdout=nobody)
    assert b"Broken" not in done.stderr and b"Traceback" not in done.stderr and b"Exception" not in done.stderr
    # The export has said what it has to say on stderr; what is no library is a failure of its own.
    assert done.returncode == {"export": 0, "lib": 4}.get(verb, 1), done.stderr


FEW = {"plan", "doctor"}


@pytest.mark.parametrize("verb", [pytest.param(v, marks=() if v in FEW else pytest.mark.slow) for v in ASKED])
def test_nobody_reads_the_talk(verb: str, ask: Ask, nobody: int) -> None:
    done = ask(verb, stderr=nobody)
    assert done.returncode in ({4, 5} if verb in {"doctor", "lib"} else {0})
    assert bool(done.stdout) == (verb != "export")


def test_nobody_reads_anything(ask: Ask, nobody: int) -> None:
    assert ask("plan", stdout=nobody, stderr=nobody).returncode == 1


def test_a_full_disk_is_one_line(ask: Ask) -> None:
    with open("/dev/full", "wb") as full:
        done = ask("plan", stdout=full.fileno())
    assert (done.returncode, done.stderr) == (1, b"rk-gemma: error: standard output: No space left on device\n")


def test_every_verb_is_here(ask: Ask) -> None:
    verbs = re.findall(r"^│ ([a-z]+) ", ask("").stdout.decode(), re.MULTILINE)
    assert set(verbs) == ASKED.keys() - {"", "version"}
