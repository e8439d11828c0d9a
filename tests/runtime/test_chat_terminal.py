"""`rk-gemma chat` on a terminal: Ctrl-C, Ctrl-D, pasted lines, the history file."""

from __future__ import annotations

import json
import os
import pty
import select
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from runtimekit import gone, patient, scratch_left, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import Popen

pytestmark = pytest.mark.board

CTRL_C, CTRL_D = b"\x03", b"\x04"
PROMPT = "> "


class Terminal:
    """A person at a terminal: types bytes, waits for words."""

    def __init__(self, child: Popen[bytes], fd: int) -> None:
        self.child, self.fd = child, fd
        self.screen = ""

    def type(self, text: bytes) -> None:
        """Press keys; what was on the screen is forgotten."""
        self.screen = ""
        os.write(self.fd, text)

    def wait_for(self, words: str, seconds: float = 20) -> str:
        """Read until the words are on the screen."""
        deadline = time.monotonic() + patient(seconds)
        while words not in self.screen:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {words!r} on the screen: {self.screen!r}"
            self.screen += self._read()
        return self.screen

    def press_until(self, key: bytes, words: str) -> None:
        """As a person does who sees nothing happen."""
        for _ in range(5):
            self.type(key)
            with suppress(AssertionError):
                self.wait_for(words, 3)
                return
        self.wait_for(words)

    def _read(self) -> str:
        try:
            data = os.read(self.fd, 4096)
        except OSError:  # a pty whose other side has closed
            data = b""
        assert data, f"it left: {self.screen!r}"
        return data.decode(errors="replace")

    def leave(self) -> int:
        """Drain the screen until the program has left."""
        with suppress(OSError):
            while select.select([self.fd], [], [], patient(10))[0]:
                data = os.read(self.fd, 4096)
                if not data:
                    break
                self.screen += data.decode(errors="replace")
        return self.child.wait(patient(10))


@pytest.fixture
def terminal(
    demo_bundle: Path, spawn: Callable[..., Popen[bytes]], board: Callable[..., dict[str, str]], tmp_path: Path
) -> Iterator[Callable[..., Terminal]]:
    """terminal(*options, key=value): the program on a pty of its own, as the leader of a session."""
    pytest.importorskip("readline")
    made: list[Terminal] = []

    def open_one(*options: object, **keys: object) -> Terminal:
        ours, theirs = pty.openpty()
        environment = board(**keys) | {
            "XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "xterm", "INPUTRC": "/dev/null", "COLUMNS": "200",
        }  # fmt: skip
        child = spawn(
            "chat", demo_bundle, "--temperature", 0, "--max-tokens", 8, *options,
            env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=_take_the_terminal,
        )  # fmt: skip
        os.close(theirs)
        made.append(Terminal(child, ours))
        return made[-1]

    yield open_one
    for each in made:
        each.child.kill()
        each.child.wait()
        os.close(each.fd)


def _take_the_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_it_greets_answers_and_leaves_on_ctrl_d(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    t = terminal()
    t.wait_for("/help for commands")
    t.wait_for(PROMPT)
    t.type(b"Hi there\r")
    t.wait_for("\n")
    t.wait_for(PROMPT)
    t.type(b"/stats\r")
    t.wait_for("npu: ")
    t.wait_for(PROMPT)
    t.type(CTRL_D)
    assert t.leave() == 0
    history = tmp_path / "state" / "rk-gemma" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert history.read_text().splitlines()[-2:] == ["Hi there", "/stats"]
    again = terminal()
    again.wait_for(PROMPT)
    again.type(b"\x1b[A\x1b[A")  # up, up
    again.wait_for("Hi there")
    again.type(b"\x15/quit\r")
    assert again.leave() == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal: Callable[..., Terminal], scratch: Path) -> None:
    t = terminal("--max-tokens", 500, "--temperature", 5, "--top-k", 0, "--top-p", 1, token_delay_us=50_000)
    t.wait_for(PROMPT)
    t.type(b"Hi\r")
    t.wait_for("Hi\r\n")
    t.wait_for("\x1b[?2004l\r")  # readline hands the terminal back; what comes now is the answer
    wait_until(lambda: bool(select.select([t.fd], [], [], 0.05)[0]), "some of the answer")
    t.type(CTRL_C)
    t.wait_for("stopped")
    t.wait_for(PROMPT)
    t.type(b"/stats\r")
    t.wait_for("tokens/s, abort")
    t.wait_for(PROMPT)
    t.type(b"half a line")
    t.wait_for("half a line")
    t.press_until(CTRL_C, "Ctrl-D leaves")  # one just before the interpreter waits is noted at the next key
    t.wait_for(PROMPT)
    t.type(b"/quit\r")
    assert t.leave() == 0
    assert gone([t.child.pid])
    assert scratch_left(scratch) == []


def test_pasted_lines_are_one_message(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    t = terminal()
    t.wait_for(PROMPT)
    t.type(b"\x1b[200~first line\rsecond line\r/third line\x1b[201~")
    t.type(b"\r")
    t.wait_for("\n")
    t.wait_for(PROMPT)
    saved = tmp_path / "talk.json"
    t.type(f"/save {saved}\r".encode())
    t.wait_for("saved to")
    t.wait_for(PROMPT)
    t.type(CTRL_D)
    assert t.leave() == 0
    turns = json.loads(saved.read_text())
    assert turns[0] == {"role": "user", "content": "first line\nsecond line\n/third line"}
    assert sum(turn["role"] == "user" for turn in turns) == 1


def test_a_backslash_goes_on_in_the_next_line(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    t = terminal()
    t.wait_for(PROMPT)
    t.type(b"one \\\r")
    t.wait_for(". ")
    t.type(b"two\r")
    t.wait_for(PROMPT)
    saved = tmp_path / "talk.json"
    t.type(f"/save {saved}\r".encode())
    t.wait_for("saved to")
    t.wait_for(PROMPT)
    t.type(CTRL_D)
    assert t.leave() == 0
    assert '"one \\ntwo"' in saved.read_text()


def test_an_error_is_a_line_and_the_talk_goes_on(terminal: Callable[..., Terminal]) -> None:
    t = terminal()
    t.wait_for(PROMPT)
    t.type(b"/nonsense\r")
    t.wait_for("no command /nonsense")
    t.wait_for(PROMPT)
    t.type(CTRL_D)
    assert t.leave() == 0
