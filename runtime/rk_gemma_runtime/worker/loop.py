"""Two threads: one listens (so that a ping is answered and an abort heard while the engine computes), the main
thread runs the engine. When the parent's end closes, the process leaves at once, whatever the engine does."""

from __future__ import annotations

import logging
import os
import queue
import resource
import shutil
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from rk_gemma_runtime import wire
from rk_gemma_runtime.errors import EngineError, NpuError, RkGemmaError, WireError
from rk_gemma_runtime.worker.outbox import Outbox

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rk_gemma_runtime.engines.base import Engine, Finish

log = logging.getLogger(__name__)
Job = wire.Load | wire.Generate | wire.Logits | wire.Reset

# Each NPU buffer is a descriptor; the vendor's server raises the limit to 102400 before init (flask_server.py).
WANTED_FDS = 102_400


class Worker:
    """Serves one parent over one socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._engine: Engine | None = None
        self._current = 0
        self._aborted = 0  # numbers grow: every job up to this one is to stop
        self._scratch = ""
        self._version = ""
        self._outbox = Outbox(self._send_raw)

    def serve(self) -> None:
        """Run until the parent goes away; never returns normally."""
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            self._work(self._jobs.get())

    def _listen(self) -> None:
        decoder = wire.Decoder()
        try:
            while data := self._sock.recv(1 << 16):
                for message in decoder.feed(data):
                    self._hear(message)
        except Exception:  # the edge of the process: one that cannot hear must leave
            log.exception("the parent's stream broke")
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)  # the parent may have been killed
        os._exit(0)

    def _hear(self, message: wire.Message) -> None:
        if isinstance(message, wire.Ping):
            self._send(wire.Pong(message.number, self._outbox.sent))
        elif isinstance(message, wire.Abort):
            self._aborted = max(self._aborted, message.number)
            if self._engine is not None and self._current == message.number:
                self._engine.abort()
        elif isinstance(message, (wire.Load, wire.Generate, wire.Logits, wire.Reset)):
            if isinstance(message, wire.Load):
                self._scratch = message.setup.scratch
            self._jobs.put(message)
        else:
            raise WireError(f"a worker does not take {type(message).__name__}")

    def _work(self, job: Job) -> None:
        number = 0 if isinstance(job, wire.Load) else job.number
        try:
            self._do(job)
        except RkGemmaError as error:
            reason = error.reason.value if isinstance(error, NpuError) else ""
            mark_lines(number)
            self._send(wire.Failed(number, type(error).__name__, str(error), reason))
        except Exception as error:  # the edge of the process: the parent must hear of it
            log.exception("job %d", number)
            mark_lines(number)
            self._send(wire.Failed(number, "EngineError", f"{type(error).__name__}: {error}", ""))
        finally:
            self._current = 0

    def _do(self, job: Job) -> None:
        if isinstance(job, wire.Load):
            self._engine, self._version = make_engine(job, self._reloaded)
            mark_lines(0)
            self._send(wire.Loaded(self._version))
            return
        engine = self._engine
        if engine is None:
            raise EngineError("no engine is loaded")
        self._current = job.number
        if isinstance(job, wire.Generate):
            self._generate(engine, job)
        elif isinstance(job, wire.Logits):
            engine.rows(job.request, lambda data, count: self._send(wire.Rows(job.number, count, data)))
            self._done(job.number, None)
        else:
            engine.reset()
            self._done(job.number, None)

    def _generate(self, engine: Engine, job: wire.Generate) -> None:
        def still_wanted() -> None:
            if self._aborted >= job.number == self._current:  # the abort came before the engine had begun
                engine.abort()

        put = self._outbox.begin(job.number, still_wanted)
        try:
            finish = engine.generate(job.request, put)
        finally:
            self._outbox.flush()
        self._done(job.number, finish)

    def _done(self, number: int, finish: Finish | None) -> None:
        mark_lines(number)
        self._send(wire.Done(number, finish))

    def _reloaded(self) -> None:
        """The parent looks at what the library printed, as after the first load."""
        mark_lines(self._current, end=False)
        self._send(wire.Loaded(self._version))

    def _send(self, message: wire.Message) -> None:
        self._send_raw(wire.encode(message))

    def _send_raw(self, frame: bytes) -> None:
        with self._sending, suppress(BrokenPipeError):
            self._sock.sendall(frame)


def mark_lines(number: int, end: bool = True) -> None:
    """Tell the reader of our stderr that what was printed up to here belongs to job `number` or to one before."""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"\n{wire.MARK}{wire.mark_of(number, end)}\n".encode())


def make_engine(load: wire.Load, on_reload: Callable[[], object]) -> tuple[Engine, str]:
    """The engine that a Load asks for, and the version of what is under it. Raises EngineError."""
    _raise_fd_limit()
    if load.kind == "npu":
        from rk_gemma_runtime.engines.npu import NpuEngine

        npu = NpuEngine.open(load.setup)
        npu.on_reload = on_reload
        return npu, npu.version
    from rk_gemma_runtime.engines.cpu import CpuEngine

    return CpuEngine(load.setup), "llama.cpp"


def no_core_dump() -> None:
    """A crash would write gigabytes of weights, and the prompt, to disk. 1 in place of 0 also keeps the kernel from
    piping the dump to a handler (core(5))."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def _raise_fd_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FDS if hard == resource.RLIM_INFINITY else min(WANTED_FDS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
