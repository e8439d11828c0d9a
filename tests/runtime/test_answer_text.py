"""`rk-gemma run` on a terminal: a notice has a line of its own, and so has the shell's prompt after Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from runtimekit import patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import Popen

pytestmark = pytest.mark.board

Started = tuple["Popen[bytes]", int]


@pytest.fixture
def on_terminal(
    demo_bundle: Path, spawn: Callable[..., Popen[bytes]], board: Callable[..., dict[str, str]]
) -> Iterator[Callable[..., Started]]:
    """on_terminal(*options, key=value): the program, and the other side of its terminal."""
    made: list[Started] = []

    def start(*options: object, **keys: object) -> Started:
        ours, theirs = pty.openpty()
        question = ("What is errno 14?", "--temperature", 0, *options)
        child = spawn("run", demo_bundle, *question, env=board(**keys), stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        made.append((child, ours))
        return made[-1]

    yield start
    for child, fd in made:
        child.kill()
        child.wait()
        os.close(fd)


def read(fd: int, enough: Callable[[str], bool] = lambda _: False) -> str:
    """The screen, until there is enough or the program has left."""
    screen = ""
    with suppress(OSError):
        while not enough(screen):
            assert select.select([fd], [], [], patient(20))[0], screen
            data = os.read(fd, 4096)
            if not data:
                break
            screen += data.decode(errors="replace")
    return screen.replace("\r\n", "\n").replace("\r\x1b[K", "")


def test_a_failover_does_not_break_into_the_answers_line(on_terminal: Callable[..., Started]) -> None:
    child, fd = on_terminal("--max-tokens", 12, crash_at_token=4)
    lines = read(fd).splitlines()
    assert child.wait(patient(10)) == 0
    notices = [n for n, line in enumerate(lines) if "rk-gemma: " in line]
    assert notices, lines
    assert all(lines[n].startswith("rk-gemma: ") for n in notices)
    assert lines[0] and 0 not in notices, "the answer had begun"


def test_ctrl_c_leaves_the_cursor_at_the_start_of_a_line(on_terminal: Callable[..., Started]) -> None:
    child, fd = on_terminal("--max-tokens", 500, token_delay_us=200_000)
    begun = read(fd, lambda screen: len(screen) > 2)
    child.send_signal(signal.SIGINT)
    assert (begun + read(fd)).endswith("\n")
    assert child.wait(patient(10)) == 130


def test_the_numbers_say_who_made_how_many(
    demo_bundle: Path, spawn: Callable[..., Popen[bytes]], board: Callable[..., dict[str, str]]
) -> None:
    env = board(crash_at_token=8, token_delay_us=20_000)
    child = spawn("chat", demo_bundle, "--temperature", 0, env=env, stdin=subprocess.PIPE)
    _, err = child.communicate(b"What is errno 14?\n/stats\n", timeout=patient(60))
    stats = err.decode().splitlines()[-1]
    found = re.search(r"rk-gemma: cpu: .* (\d+) new \(npu (\d+), then cpu (\d+)\)", stats)
    assert found and int(found[1]) == int(found[2]) + int(found[3]) and 0 < int(found[2]) < 8, stats


def test_in_a_pipe_the_answer_stays_whole(
    demo_bundle: Path, spawn: Callable[..., Popen[bytes]], board: Callable[..., dict[str, str]]
) -> None:
    answers = []
    for keys in ({}, {"crash_at_token": 4}):
        child = spawn(
            "run", demo_bundle, "What is errno 14?", "--temperature", 0, "--max-tokens", 12, env=board(**keys)
        )
        answers.append(child.communicate(timeout=patient(30))[0])
    assert answers[0] == answers[1] != b""
