"""A worker process: spawned, watched, ended. Its stdout and stderr are read from before the library loads.

Whatever becomes of this process, the worker goes with it: it reads end-of-file from its socket, it sees another
parent, and the kernel kills it when the lifeline closes (worker/life.py). A forked child of this process closes its
copies.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
import weakref
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from rk_gemma_runtime import children
from rk_gemma_runtime.board.facts import WANTED_FDS
from rk_gemma_runtime.errors import EngineError, WorkerDied
from rk_gemma_runtime.supervisor import scratch
from rk_gemma_runtime.supervisor.environment import worker_environment
from rk_gemma_runtime.supervisor.lines import LineBook, read_lines
from rk_gemma_runtime.supervisor.refusal import telling_line

if TYPE_CHECKING:
    from rk_gemma_runtime.supervisor.lines import LibraryLine

LAST_WAIT_S = 3.0
LINES_S = 1.0  # so long what a worker has printed is waited for, once it has ended
BEAT_S = 0.05
# Python calls what is registered for a fork for ever, so the living workers are kept here, weakly.
_LIVING: weakref.WeakSet[Process] = weakref.WeakSet()


class Process:
    """One spawned worker. Dropping this object, or the end of this program, ends it too."""

    def __init__(self, needs_scratch: bool) -> None:
        """Spawn. `needs_scratch`: name a private directory, which the worker makes and removes.

        Raises EngineError if no process can be started; nothing is left open then.
        """
        self.scratch = scratch.new_name() if needs_scratch else None
        self._book = LineBook()
        with ExitStack() as unless_it_fails, ExitStack() as childs:
            try:
                # All above 2, here too: what a daemon prints to a stream that it has closed is not for the worker.
                pair = socket.socketpair()
                ours, theirs = (socket.socket(fileno=children.above_standard(one.detach())) for one in pair)
                unless_it_fails.callback(ours.close)
                their_end = theirs.detach()
                childs.callback(os.close, their_end)
                read_end, write_end = _pipe(unless_it_fails, childs)
                child_life, our_life = _pipe(childs, unless_it_fails)
                self._child = _spawn(their_end, child_life, write_end)
            except OSError as error:
                raise _no_worker(error) from error
            unless_it_fails.pop_all()
        self.socket = ours
        self._lifeline = our_life
        end = (os.getpid(), self._child, ours, our_life, self.scratch)
        self._end = weakref.finalize(self, _abandon, *end)
        _LIVING.add(self)
        self._output = read_end
        self._reader = threading.Thread(target=read_lines, args=(read_end, self._book), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped it (SIGSTOP, a debugger, a frozen control group): it cannot answer then."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
        except (OSError, IndexError):
            return False

    def lines(self) -> tuple[LibraryLine, ...]:
        """What the worker printed last, oldest first, at most 200 lines."""
        return self._book.lines()

    def settled_lines(self, mark: int = 0) -> tuple[str, ...]:
        """The same as printed, after a short wait for what is still on its way: up to the worker's `mark`, or, from a
        worker that has ended, up to the end."""
        if mark:
            self._book.wait_for_mark(mark, 1.0)
        else:
            self._read_out()
        return self._book.raw()

    def fresh_lines(self, mark: int = 0) -> tuple[str, ...]:
        """The part of `settled_lines` that is no older than what led to `mark`; without one, since the last mark."""
        return self._book.fresh(mark)

    def died(self) -> WorkerDied:
        """Reap a worker whose socket has closed, and say how it ended."""
        try:
            code = self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            self.kill()
            text = "the worker closed its connection and did not leave; it was killed"
            return WorkerDied(text, self.settled_lines())
        lines = self.settled_lines()
        quoted = telling_line(self.fresh_lines())
        # Where SIGCHLD is ignored the kernel keeps no status, and subprocess says 0.
        status = None if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN else code
        return WorkerDied(f"the worker {_describe(status)}" + (f": {quoted}" if quoted else ""), lines, status)

    def kill(self) -> None:
        """End the worker now and reap it."""
        _kill(self._child)

    def hang_up(self) -> None:
        """Tell the worker to go, from any thread; whoever reads from it reads its end."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self, grace_s: float = 2.0) -> None:
        """Let the worker go. May be called twice. No other thread may be reading from the socket any more."""
        self.hang_up()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(grace_s)
        _LIVING.discard(self)
        self._end()
        self._read_out()

    def _read_out(self) -> None:
        """Wait for the lines of a worker that has ended. Their end may not come: what the library has started may
        hold the pipe open."""
        until = time.monotonic() + LINES_S
        while True:
            self._reader.join(BEAT_S)
            done = not self._reader.is_alive() or time.monotonic() >= until
            if done or self._child.poll() is None or not _readable(self._output):
                return

    def leave_to_parent(self) -> None:
        """In a forked child: close the copies, touch nothing else."""
        if self._end.detach() is None:  # it was closed before the fork: its numbers are somebody else's
            return
        self.socket.close()
        os.close(self._lifeline)
        self._child.returncode = 0  # another process's child: not to be waited for


def _readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """A pipe whose ends are closed by these."""
    first, second = map(children.above_standard, os.pipe())
    reader.callback(os.close, first)
    writer.callback(os.close, second)
    return first, second


def _spawn(sock: int, lifeline: int, output: int) -> subprocess.Popen[bytes]:
    """Start a worker with these descriptors. Raises OSError, EngineError."""
    arguments = map(str, (sock, lifeline, os.getpid(), WANTED_FDS))
    return subprocess.Popen(
        children.command("rk_gemma_runtime.worker.__main__", *arguments),
        pass_fds=(sock, lifeline),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=worker_environment(),
        start_new_session=True,  # a signal to this program's group is not for the worker
    )


def _no_worker(error: OSError) -> EngineError:
    what = f"{error.filename}: " if error.filename else ""
    return EngineError(f"no worker can be started: {what}{error.strerror}; {children.PYTHON} names a Python")


def _kill(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        child.kill()
    with suppress(subprocess.TimeoutExpired):  # one that hangs in the driver cannot be killed
        child.wait(LAST_WAIT_S)


def _abandon(
    owner: int, child: subprocess.Popen[bytes], sock: socket.socket, lifeline: int, directory: scratch.Place
) -> None:
    """The end of a worker whose Process is dropped, or of this program. Holds nothing of the Process."""
    if os.getpid() != owner:
        return
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
    os.close(lifeline)
    _kill(child)
    if directory is not None:  # still there only if the worker was killed while it loaded
        shutil.rmtree(directory, ignore_errors=True)


def _describe(code: int | None) -> str:
    if code is None:
        return "ended, and its exit status is not known"
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _after_fork_in_child() -> None:
    for process in [*_LIVING]:
        process.leave_to_parent()
    _LIVING.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
