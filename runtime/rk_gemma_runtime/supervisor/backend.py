"""A backend as the parent sees it: a worker with an engine, and one job at a time."""

from __future__ import annotations

import select
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from rk_gemma_runtime import errors, wire
from rk_gemma_runtime.engines.base import RowsRequest, Sampling, Setup
from rk_gemma_runtime.errors import EngineError, NpuError, NpuReason, WireError, WorkerDied, WorkerHung
from rk_gemma_runtime.supervisor.process import Process
from rk_gemma_runtime.supervisor.refusal import diagnosis_of, name_refusal, says_init_failed, telling_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.engines.base import Finish, Request
    from rk_gemma_runtime.supervisor.lines import LibraryLine

RECEIVE = 1 << 18
Told = TypeVar("Told", NpuError, WorkerDied, WorkerHung)


@dataclass(frozen=True)
class Source:
    """What a worker shall load: `kind` npu or cpu, the model file, its context in tokens; `board` for the diagnosis
    of a failure; the rest as in Setup."""

    kind: str
    model: Path
    context: int
    threads: int
    library: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    domain: int = 0
    adapters: tuple[tuple[str, str], ...] = ()
    board: Board | None = None

    def setup(self, scratch: str) -> Setup:
        """What the engine is told."""
        model, context, threads, library = str(self.model), self.context, self.threads, self.library
        return Setup(model, context, threads, scratch, library, self.sampling, self.domain, self.adapters)


@dataclass(frozen=True)
class Limits:
    """How long silence is borne, in seconds. A failing init of the vendor's library may take a minute; a prompt
    takes `first_token_s` and `prompt_token_s` for each of its tokens (2B on the CPU of a board: a tenth of that)."""

    load_s: float = 300.0
    first_token_s: float = 120.0
    prompt_token_s: float = 0.5
    token_s: float = 30.0
    abort_s: float = 5.0
    pong_s: float = 2.0


class Backend:
    """One worker with one engine. Not thread-safe, except `abort`. Starts and stops a process: close it."""

    def __init__(self, source: Source, limits: Limits | None = None) -> None:
        """Spawn the worker and load the model. Blocks.

        Raises NpuError with the library's lines, EngineError, WorkerDied, WorkerHung.
        """
        self.source = source
        self._limits = limits or Limits()
        self._decoder = wire.Decoder()
        self._sending = threading.Lock()
        self._number = 0
        self._running = 0
        self._process = Process(needs_scratch=source.kind == "cpu")
        try:
            self.version = self._load()
        except BaseException:
            self._process.kill()
            self._process.close()
            raise

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the worker still runs."""
        return self._process.alive

    @property
    def lines(self) -> tuple[LibraryLine, ...]:
        """What the library printed last, at most 200 lines."""
        return self._process.lines()

    def generate(self, request: Request) -> Iterator[wire.Tokens | Finish]:
        """Tokens as they come, then a Finish. Closing the iterator aborts the job and leaves the backend ready.

        Raises EngineError, NpuError, WorkerDied, WorkerHung; after the last two the backend is gone.
        """
        number = self._start(lambda n: wire.Generate(n, request))
        finished = False
        try:
            for message in self._replies(number, len(request.ids)):
                if isinstance(message, wire.Tokens):
                    yield message
                elif isinstance(message, wire.Done) and message.finish is not None:
                    finished = True
                    yield message.finish
            finished = True
        except EngineError:
            finished = True
            raise
        except SystemExit:  # the program leaves: no time for manners
            finished = True
            self._process.kill()
            raise
        finally:
            self._running = 0
            if not finished:
                self._drain(number)

    def logits(self, ids: tuple[int, ...]) -> Iterator[tuple[bytes, int]]:
        """(float32 bytes, rows) parts of the plain model's logits, in order. Raises as `generate`."""
        yield from self.rows(RowsRequest(ids))

    def rows(self, request: RowsRequest) -> Iterator[tuple[bytes, int]]:
        """(float32 bytes, rows) parts, in order. Raises as `generate`."""
        number = self._start(lambda n: wire.Logits(n, request))
        finished = False
        try:
            for message in self._replies(number, len(request.ids)):
                if isinstance(message, wire.Rows):
                    yield message.data, message.rows
            finished = True
        except EngineError:
            finished = True
            raise
        finally:
            self._running = 0
            if not finished:
                self._drain(number)

    def reset(self) -> None:
        """Forget cached prompts. Blocks shortly. Raises as `generate`."""
        number = self._start(wire.Reset)
        for _ in self._replies(number):
            pass
        self._running = 0

    def abort(self) -> None:
        """Stop the job in progress; its Finish says abort. From any thread."""
        number = self._running
        if number:
            with suppress(EngineError):  # a worker that has died needs no stopping
                self._send(wire.Abort(number))

    def close(self) -> None:
        """End the worker. May be called twice."""
        self._process.close()

    def _load(self) -> str:
        self._send(wire.Load(self.source.kind, self.source.setup(str(self._process.scratch or ""))))
        for message in self._messages(lambda seen: self._limits.load_s):
            if isinstance(message, wire.Loaded):
                self._check_loaded(0)
                return message.version
            if isinstance(message, wire.Failed):
                raise self._failure(message)
        raise self._told(self._process.died())

    def _check_loaded(self, job: int) -> None:
        """Some releases print that init failed and return 0; the first load is job 0. Raises NpuError."""
        mark = wire.mark_of(job, end=job == 0)
        lines = self._process.settled_lines(mark)
        if self.source.kind == "npu" and says_init_failed(self._process.fresh_lines(mark)):
            if job:
                self._process.kill()
            text = f"rkllm_init returned 0 and yet failed: {telling_line(lines)}"
            raise self._told(NpuError(text, name_refusal(NpuReason.INIT_FAILED, lines), lines))

    def _start(self, make: Callable[[int], wire.Message]) -> int:
        self._number += 1
        self._running = self._number
        self._send(make(self._number))
        return self._number

    def _replies(self, number: int, prompt: int = 0) -> Iterator[wire.Message]:
        """What concerns job `number`, up to and including its end. `prompt`: tokens to read before the first."""
        limits = self._limits
        first = limits.first_token_s + prompt * limits.prompt_token_s
        for message in self._messages(lambda seen: limits.token_s if seen else first):
            if isinstance(message, wire.Loaded):  # again, for this request's sampling
                self._check_loaded(number)
            if getattr(message, "number", None) != number:
                continue  # the tail of a job that was given up
            if isinstance(message, wire.Failed):
                raise self._failure(message)
            yield message
            if isinstance(message, wire.Done):
                return

    def _messages(self, patience: Callable[[bool], float]) -> Iterator[wire.Message]:
        """Messages as they come. Silence for longer than `patience(seen anything)` is a hang."""
        poll = select.poll()
        poll.register(self._process.socket, select.POLLIN)
        seen = False
        yield from self._decoder.feed(b"")  # what an iterator that was closed early has left
        while True:
            silence = patience(seen)
            if not poll.poll(silence * 1000):
                raise self._hung(silence)
            for message in self._receive():
                seen = seen or (isinstance(message, (wire.Tokens, wire.Rows)) and message.number == self._running)
                yield message

    def _receive(self) -> Iterator[wire.Message]:
        try:
            data = self._process.socket.recv(RECEIVE)
        except ConnectionResetError:
            data = b""
        if not data:
            raise self._told(self._process.died())
        try:
            yield from self._decoder.feed(data)
        except WireError:
            self._process.kill()
            raise

    def _hung(self, silence: float) -> WorkerHung:
        answers = self._answers_ping()
        self._process.kill()
        state = "its engine makes no progress" if answers else "the whole process is stuck"
        text = f"no sign of progress for {silence:g} s ({state}); the worker was killed"
        return self._told(WorkerHung(text, self._process.settled_lines()))

    def _answers_ping(self) -> bool:
        poll = select.poll()
        poll.register(self._process.socket, select.POLLIN)
        try:
            self._process.socket.sendall(wire.encode(wire.Ping(self._number)))
            if not poll.poll(self._limits.pong_s * 1000):
                return False
            return any(isinstance(m, wire.Pong) for m in self._receive())
        except (OSError, EngineError):
            return False

    def _drain(self, number: int) -> None:
        """Abort a job that nobody listens to any more; kill the worker if it does not obey."""
        try:
            self._send(wire.Abort(number))
            deadline = time.monotonic() + self._limits.abort_s
            for message in self._messages(lambda seen: max(0.001, deadline - time.monotonic())):
                if isinstance(message, (wire.Done, wire.Failed)) and message.number == number:
                    return
        except EngineError:
            self._process.kill()

    def _send(self, message: wire.Message) -> None:
        try:
            with self._sending:  # an abort from another thread must not cut a frame in two
                self._process.socket.sendall(wire.encode(message))
        except OSError as error:
            raise self._told(self._process.died()) from error

    def _failure(self, message: wire.Failed) -> EngineError:
        kind: Any = getattr(errors, message.error, EngineError)
        mark = wire.mark_of(message.number, end=True)
        lines = self._process.settled_lines(mark)
        if not issubclass(kind, NpuError):
            return EngineError(message.message)
        reason, fresh = NpuReason(message.reason), self._process.fresh_lines(mark)
        quoted = telling_line(fresh) if reason in {NpuReason.INIT_FAILED, NpuReason.RUN_FAILED} else ""
        text = f"{message.message}: {quoted}" if quoted else message.message
        refused: NpuError = kind(text, name_refusal(reason, fresh), lines)
        return self._told(refused)

    def _told(self, error: Told) -> Told:
        """The error with the rule book's diagnosis of what the library printed."""
        if self.source.kind == "npu":
            error.diagnosis = diagnosis_of(error, self.source.board)
        if isinstance(error, NpuError) and error.named is not None:
            error.reason = NpuReason.of(error.named.cause, error.reason)
        return error
