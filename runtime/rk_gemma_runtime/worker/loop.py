"""Two threads: one listens (so that a ping is answered and an abort heard while the engine computes), the main
thread runs the engine. When the parent's end closes, the process leaves at once, whatever the engine does."""

from __future__ import annotations

import logging
import os
import queue
import resource
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma_runtime import wire
from rk_gemma_runtime.errors import EngineError, NpuError, RkGemmaError, WireError

if TYPE_CHECKING:
    import socket

    from rk_gemma_runtime.engines.base import Engine

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
        self._progress = 0
        self._scratch = ""

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
        except (OSError, WireError):
            log.exception("the parent's stream broke")
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)  # the parent may have been killed
        os._exit(0)

    def _hear(self, message: wire.Message) -> None:
        if isinstance(message, wire.Ping):
            self._send(wire.Pong(message.number, self._progress))
        elif isinstance(message, wire.Abort):
            self._aborted = max(self._aborted, message.number)
            if self._engine is not None and self._current == message.number:
                self._engine.abort()
        elif isinstance(message, (wire.Load, wire.Generate, wire.Logits, wire.Reset)):
            if isinstance(message, wire.Load):
                self._scratch = message.scratch
            self._jobs.put(message)
        else:
            raise WireError(f"a worker does not take {type(message).__name__}")

    def _work(self, job: Job) -> None:
        number = 0 if isinstance(job, wire.Load) else job.number
        try:
            self._do(job)
        except RkGemmaError as error:
            reason = error.reason.value if isinstance(error, NpuError) else ""
            self._send(wire.Failed(number, type(error).__name__, str(error), reason))
        except Exception as error:  # the edge of the process: the parent must hear of it
            log.exception("job %d", number)
            self._send(wire.Failed(number, "EngineError", f"{type(error).__name__}: {error}", ""))
        finally:
            self._current = 0

    def _do(self, job: Job) -> None:
        if isinstance(job, wire.Load):
            self._engine, version = make_engine(job)
            self._send(wire.Loaded(version))
            return
        engine = self._engine
        if engine is None:
            raise EngineError("no engine is loaded")
        self._current = job.number
        if isinstance(job, wire.Generate):
            self._generate(engine, job)
        elif isinstance(job, wire.Logits):
            engine.logits(job.ids, lambda data, rows: self._send(wire.Rows(job.number, rows, data)))
            self._send(wire.Done(job.number, None))
        else:
            engine.reset()
            self._send(wire.Done(job.number, None))

    def _generate(self, engine: Engine, job: wire.Generate) -> None:
        number, send, lock = job.number, self._sock.sendall, self._sending

        def on_token(token: int, text: bytes) -> None:
            self._progress += 1
            frame = wire.encode_token(number, token, text)
            with lock:
                send(frame)
            if self._aborted >= number:  # it came before the engine had begun
                engine.abort()

        finish = engine.generate(job.request, on_token)
        self._send(wire.Done(number, finish))

    def _send(self, message: wire.Message) -> None:
        with self._sending, suppress(BrokenPipeError):
            self._sock.sendall(wire.encode(message))


def make_engine(load: wire.Load) -> tuple[Engine, str]:
    """The engine that a Load asks for, and the version of what is under it. Raises EngineError."""
    _raise_fd_limit()
    if load.kind == "npu":
        from rk_gemma_runtime.engines.npu import NpuEngine

        npu = NpuEngine.open(Path(load.model), load.context, load.library or None)
        return npu, npu.version
    from rk_gemma_runtime.engines.cpu import CpuEngine

    return CpuEngine(Path(load.model), load.context, load.threads, Path(load.scratch)), "llama.cpp"


def _raise_fd_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FDS if hard == resource.RLIM_INFINITY else min(WANTED_FDS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
