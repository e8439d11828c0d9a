"""Two threads: one listens (so that a ping is answered and an abort heard while the engine computes), the main
thread runs the engine. When the parent's end closes, the process leaves at once, whatever the engine does."""

from __future__ import annotations

import logging
import os
import queue
import select
import shutil
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from rk_gemma_runtime import wire
from rk_gemma_runtime.errors import EngineError, NpuError, RkGemmaError, WireError
from rk_gemma_runtime.stop import Stop
from rk_gemma_runtime.worker.engine import open_engine
from rk_gemma_runtime.worker.life import raise_fd_limit
from rk_gemma_runtime.worker.outbox import Outbox
from rk_gemma_runtime.worker.reading import ReadingMeter

if TYPE_CHECKING:
    import socket

    from rk_gemma_runtime.engines.base import Engine
    from rk_gemma_runtime.jobs import Finish

log = logging.getLogger(__name__)
Job = wire.Load | wire.Generate | wire.Logits | wire.Reset
BEAT_S = 0.4


class Worker:
    """Serves one parent over one socket."""

    def __init__(self, sock: socket.socket, parent: int, files: int) -> None:
        """`parent`: the process to go with; `files`: open files that an engine may need."""
        self._sock, self._parent, self._files = sock, parent, files
        self._sending = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Job, Stop]] = queue.SimpleQueue()
        self._stops: dict[int, Stop] = {}  # of the jobs that have not ended
        self._engine: Engine | None = None
        self._current = 0
        self._scratch = ""
        self._version = ""
        self._outbox = Outbox(self._send_raw)
        self._meter = ReadingMeter()

    def serve(self) -> None:
        """Run until the parent goes away; never returns normally."""
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            self._work(*self._jobs.get())

    def _listen(self) -> None:
        try:
            self._hear_all()
        except Exception:  # the edge of the process: one that cannot hear must leave
            log.exception("the parent's stream broke")
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)  # the parent may have been killed
        os._exit(0)

    def _hear_all(self) -> None:
        """Until the parent's end closes, or the parent is another: a forked child may hold that end open."""
        decoder, poll = wire.Decoder(), select.poll()
        poll.register(self._sock, select.POLLIN)
        while os.getppid() == self._parent:
            if not poll.poll(BEAT_S * 1000):
                self._beat()
                continue
            data = self._sock.recv(1 << 16)
            if not data:
                return
            for message in decoder.feed(data):
                self._hear(message)

    def _beat(self) -> None:
        """While a model is being read: tell how much of it."""
        read = self._meter.advanced()
        if read is not None:
            self._send(wire.Progress(self._current, *read))

    def _hear(self, message: wire.Message) -> None:
        if isinstance(message, wire.Ping):
            self._send(wire.Pong(message.number, self._outbox.sent))
        elif isinstance(message, wire.Abort):
            stop = self._stops.get(message.number)
            if stop is not None:
                stop.wish()
        elif isinstance(message, (wire.Load, wire.Generate, wire.Logits, wire.Reset)):
            stop = self._stops[_number(message)] = Stop()
            if isinstance(message, wire.Load):
                self._scratch = message.setup.scratch
            self._jobs.put((message, stop))
        else:
            raise WireError(f"a worker does not take {type(message).__name__}")

    def _work(self, job: Job, stop: Stop) -> None:
        number = self._current = _number(job)
        try:
            self._do(job, stop)
        except RkGemmaError as error:
            reason = error.reason.value if isinstance(error, NpuError) else ""
            self._fail(number, type(error).__name__, str(error), reason)
        except Exception as error:  # the edge of the process: the parent must hear of it
            log.exception("job %d", number)
            self._fail(number, "EngineError", f"{type(error).__name__}: {error}")
        finally:
            self._meter.stop()
            self._stops.pop(number, None)

    def _do(self, job: Job, stop: Stop) -> None:
        if isinstance(job, wire.Load):
            self._load(job)
            return
        engine = self._engine
        if engine is None:
            raise EngineError("no engine is loaded")
        finish = None
        if isinstance(job, wire.Generate):
            finish = self._generate(engine, job, stop)
        elif isinstance(job, wire.Logits):
            engine.rows(job.request, lambda data, count: self._send(wire.Rows(job.number, count, data)))
        else:
            engine.reset()
        self._tell(engine, job.number)
        mark_lines(job.number)
        self._send(wire.Done(job.number, finish))

    def _load(self, job: wire.Load) -> None:
        before, now = raise_fd_limit(self._files)
        with self._meter.reading(job.setup.model):
            self._engine, self._version, per_run = open_engine(job)
        self._tell(self._engine, 0)
        mark_lines(0)
        self._send(wire.Loaded(self._version, before, now, per_run))

    def _generate(self, engine: Engine, job: wire.Generate, stop: Stop) -> Finish:
        put = self._outbox.begin(job.number)
        try:
            return engine.generate(job.request, put, self._read, stop)
        finally:
            self._outbox.flush()

    def _tell(self, engine: Engine, job: int) -> None:
        """What has come up beside the answer."""
        for cause, text in engine.take_notices():
            self._send(wire.Noticed(job, cause, text))
        for token, said in engine.take_heard():
            self._send(wire.Heard(job, token, said.hex()))

    def _read(self, done: int, total: int) -> None:
        self._send(wire.Progress(self._current, done, total))

    def _fail(self, number: int, error: str, message: str, reason: str = "") -> None:
        mark_lines(number)
        self._send(wire.Failed(number, error, message, reason))

    def _send(self, message: wire.Message) -> None:
        self._send_raw(wire.encode(message))

    def _send_raw(self, frame: bytes) -> None:
        with self._sending, suppress(BrokenPipeError):
            self._sock.sendall(frame)


def _number(job: Job) -> int:
    return 0 if isinstance(job, wire.Load) else job.number


def mark_lines(number: int) -> None:
    """Tell the reader of our stderr that what was printed up to here belongs to job `number` or to one before."""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"\n{wire.MARK}{wire.mark_of(number)}\n".encode())
