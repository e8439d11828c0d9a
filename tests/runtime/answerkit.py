"""What the tests of answers share: questions, the undisturbed greedy answers, and how to ask."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
from runtimekit import patient, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Ids = tuple[int, ...]
Wanted = dict[str, Ids]

# Of the demo checkpoint, whose answers to these end by themselves after 24 to 44 tokens.
FIRST, SECOND, THIRD = QUESTIONS = ("What is errno 14?", "What is errno 12?", "Hi")
SLOW = 20_000  # microseconds a token: an answer takes half a second to a second
BACKENDS = [("npu", "1.3.0"), ("npu", "1.1.0"), ("cpu", "1.3.0")]
# What nobody waits for in a test; where it is a model's load, whoever gives up must not wait for it either.
FOR_EVER_MS = 600_000


def alone(question: str) -> list[dict[str, str]]:
    """The question as a conversation that stands alone, whatever was said before."""
    return [{"role": "user", "content": question}]


def begin(gemma: Any, question: str, **options: Any) -> Any:
    """A greedy answer that has not begun."""
    return gemma.chat(alone(question), **{"temperature": 0, **options})


def ask(gemma: Any, question: str, **options: Any) -> Ids:
    """The ids of a whole greedy answer."""
    list(begin(gemma, question, **options))
    return ids_of(gemma.last)


def ids_of(answer: Any) -> Ids:
    """The ids of an answer, which must be there."""
    assert answer is not None
    return tuple(answer.ids)


def is_part(answer: Any, whole: Ids) -> bool:
    """Whether it ended by its own abort, with what the whole answer begins with."""
    return answer is not None and answer.finish_reason == "abort" and answer.ids == whole[: len(answer.ids)]


class Listener(threading.Thread):
    """Iterates an answer in a thread of its own; keeps the pieces and what was raised."""

    def __init__(self, pieces: Iterator[str], on_end: Callable[[], object] = lambda: None) -> None:
        super().__init__(daemon=True)
        self.pieces: list[str] = []
        self.error: BaseException | None = None
        self.began = threading.Event()
        self._source, self._on_end = pieces, on_end
        self.start()

    def run(self) -> None:
        try:
            for piece in self._source:
                self.pieces.append(piece)
                self.began.set()
        except BaseException as error:
            self.error = error
        self._on_end()

    def ended(self, seconds: float = 15) -> Listener:
        """Itself, after its end."""
        self.join(patient(seconds))
        assert not self.is_alive(), f"still iterating after {patient(seconds):g} s"
        return self

    def wait_until_blocked(self) -> None:
        """Until the thread stands still: it waits for something."""
        seen: list[object] = []

        def still() -> bool:
            frame = sys._current_frames().get(self.ident or 0)
            seen.append(frame and (id(frame), frame.f_lasti))
            return len(seen) > 10 and len(set(seen[-10:])) == 1

        wait_until(still, "the thread waits")


def begin_in_thread(gemma: Any, question: str, **options: Any) -> tuple[Any, Listener]:
    """An answer that has given its first piece to a thread of its own."""
    reply = begin(gemma, question, **options)
    listener = Listener(reply)
    wait_until(lambda: listener.began.is_set() or not listener.is_alive(), "the first piece")
    assert listener.error is None, listener.error
    return reply, listener


def kill_idle(pid: int) -> None:
    """Kill a child that does nothing, as the kernel does when memory runs out; it is dead then, and not reaped."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def wait_until_still(pid: int) -> None:
    """Until a process has used no time for a while: it hangs."""
    seen: list[object] = []

    def still() -> bool:
        seen.append(psutil.Process(pid).cpu_times())
        return len(seen) > 80 and len(set(seen[-80:])) == 1

    wait_until(still, f"{pid} stands still")


def in_a_thread(call: Callable[[], object]) -> None:
    """Call in another thread; raise here what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(patient(10))
    assert not thread.is_alive(), "the call does not return"
    if raised:
        raise raised[0]


def no_workers() -> bool:
    """Whether this process has no child; what nobody holds is collected first."""
    gc.collect()
    return psutil.Process().children(recursive=True) == []


def kill_children() -> None:
    """What a failed test has left must not fail the next one."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any("rk_gemma_runtime" in word for word in child.cmdline()):
                child.kill()
