"""The parent's end of the socket: whole messages out, messages in, and how long to wait for one."""

from __future__ import annotations

import select
import threading
from collections import deque
from typing import TYPE_CHECKING

from rk_gemma_runtime import wire
from rk_gemma_runtime.stop import Stopped
from rk_gemma_runtime.supervisor.silence import SLICE_S

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from rk_gemma_runtime.stop import Stop
    from rk_gemma_runtime.supervisor.silence import Silence

RECEIVE = 1 << 18
STOP_SLICE_S = 0.1  # how soon a wait that can be stopped hears of it


class Gone(Exception):
    """The worker's end is closed. Never leaves the supervisor."""


class Quiet(Exception):
    """Nothing came for as long as was borne. Never leaves the supervisor."""


class Channel:
    """One thread receives, any thread sends."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = wire.Decoder()
        self._unsent: deque[bytes] = deque()
        self._sending = threading.Lock()
        self._receiving = threading.RLock()  # a signal's handler may close what its own thread reads from

    def send(self, message: wire.Message) -> None:
        """Send, or leave it to the thread that is sending: an abort must neither cut a frame in two nor wait, for it
        may come from a signal's handler or a finalizer in that very thread. Raises Gone."""
        if self._socket.fileno() < 0:  # closed here, perhaps by a fork that left the lock taken
            raise Gone
        self._unsent.append(wire.encode(message))
        while self._unsent and self._sending.acquire(blocking=False):
            try:
                while self._unsent:
                    self._socket.sendall(self._unsent.popleft())
            except OSError as error:
                raise Gone from error
            finally:
                self._sending.release()

    def messages(
        self,
        silence: Silence,
        stop: Stop | None = None,
        on_wait: Callable[[float], object] = lambda seconds: None,
        alive: Callable[[], bool] = lambda: True,
    ) -> Iterator[wire.Message]:
        """Messages as they come; the caller breaks the silence by what it takes for progress. Only waiting counts,
        not what the caller does in between. With `stop`, a wait ends by it. `on_wait` hears of each wait without one.
        `alive`: whether the worker is; a process that the library has forked may hold its end open.

        Raises Gone, Quiet, Stopped, WireError.
        """
        most = SLICE_S if stop is None else STOP_SLICE_S
        yield from self._decoder.feed(b"")  # what an iterator that was closed early has left
        while True:
            slice_s = silence.slice_s(most)
            data = self._receive(slice_s)
            if data is None and not alive():
                data = self._receive(0.0) or b""
            if data:
                yield from self._decoder.feed(data)
            elif data is not None:
                raise Gone
            else:
                silence.passed(slice_s)
                on_wait(slice_s)
                if stop is not None:
                    stop.check()
                if silence.over:
                    raise Quiet

    def wait_until_left(self) -> None:
        """Until no thread is receiving any more; the worker must have been hung up on before."""
        with self._receiving:
            pass

    def _receive(self, seconds: float) -> bytes | None:
        """None if nothing came, nothing if the stream has ended."""
        with self._receiving:
            try:
                if not self._readable(seconds) and not self._readable(0):  # the first may have been cut short
                    return None
                return self._socket.recv(RECEIVE)
            except (OSError, ValueError):  # closed at this end
                return b""

    def _readable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


__all__ = ["Channel", "Gone", "Quiet", "Stopped"]
