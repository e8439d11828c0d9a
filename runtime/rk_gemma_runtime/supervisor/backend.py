"""A backend as the parent sees it: a worker with an engine, and one job at a time."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from rk_gemma_runtime import wire
from rk_gemma_runtime.errors import EngineError, WireError
from rk_gemma_runtime.events import Heard, Noticed, Progress
from rk_gemma_runtime.jobs import Finish
from rk_gemma_runtime.options import Limits
from rk_gemma_runtime.stop import Stop, Stopped
from rk_gemma_runtime.supervisor.channel import Channel, Gone, Quiet
from rk_gemma_runtime.supervisor.estimate import Estimate
from rk_gemma_runtime.supervisor.failures import Failures
from rk_gemma_runtime.supervisor.patience import Patience
from rk_gemma_runtime.supervisor.process import Process
from rk_gemma_runtime.supervisor.silence import Silence

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from rk_gemma_runtime.jobs import Request, RowsRequest, Sampling
    from rk_gemma_runtime.supervisor.lines import LibraryLine
    from rk_gemma_runtime.supervisor.source import Source
    from rk_gemma_runtime.supervisor.spare import Spare

    OnEvent = Callable[[Progress | Noticed | Heard], object]
    Part = wire.Tokens | wire.Rows | wire.Done

log = logging.getLogger(__name__)


class Backend:
    """One worker with one engine. One thread at a time; `close` from any. Starts and stops a process: close it.

    A job that its caller gives up is told to end and not waited for; the next one waits for that.
    """

    def __init__(
        self,
        source: Source,
        limits: Limits | None = None,
        stop: Stop | None = None,
        on_event: OnEvent | None = None,
        spare: Spare | None = None,
    ) -> None:
        """Spawn the worker, or take the spare one, and load the model. Blocks.

        Raises NpuError with the library's lines, EngineError, WorkerDied, WorkerHung; Stopped if `stop` is wished.
        Nothing is left then.
        """
        self.source = source
        self._patience = Patience(limits or Limits(), source.file_bytes, source.prompt_token_s)
        self._on_event = on_event or (lambda event: None)
        self._number = 0
        self._given_up: tuple[int, Silence] | None = None
        self._closed = False
        self._starting = threading.Lock()
        self._begin(spare.take() if spare else None)
        self.loaded = self._load_or_end(stop)

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

    def generate(self, request: Request, stop: Stop | None = None) -> Iterator[wire.Tokens | Finish]:
        """Tokens as they come, then a Finish. Once `stop` is wished it ends soon, by the worker or without it;
        closing the iterator gives the job up.

        Raises EngineError, NpuError, WorkerDied, WorkerHung; after the last two the backend is gone.
        """
        stop, count = stop or Stop(), 0
        try:
            reload_s = self._reload_for(request.sampling, stop)
            for part in self._job(lambda n: wire.Generate(n, request), len(request.ids), stop):
                if isinstance(part, wire.Tokens):
                    count += len(part.ids)
                    yield part
                elif isinstance(part, wire.Done) and part.finish is not None:
                    yield replace(part.finish, reload_s=reload_s)
        except Stopped:
            yield Finish("abort", len(request.ids), 0, count, 0.0, 0.0)

    def rows(self, request: RowsRequest, stop: Stop | None = None) -> Generator[tuple[bytes, int], None, None]:
        """(float32 bytes, rows) parts, in order. Raises as `generate`, and Stopped."""
        for part in self._job(lambda n: wire.Logits(n, request), len(request.ids), stop or Stop()):
            if isinstance(part, wire.Rows):
                yield part.data, part.rows

    def reset(self, stop: Stop | None = None) -> None:
        """Forget cached prompts. Blocks shortly. Raises as `generate`."""
        for _ in self._job(wire.Reset, 0, stop or Stop()):
            pass

    def close(self) -> None:
        """End the worker, from any thread, twice too. What reads from it ends with WorkerDied."""
        with self._starting:
            self._closed = True
        self._end()

    def _begin(self, process: Process | None = None) -> None:
        """Start a worker, or take this one."""
        self._process = process or Process(needs_scratch=self.source.kind == "cpu")
        self._channel = Channel(self._process.socket)
        self._failures = Failures(self._process, self.source.kind, self.source.board)

    def _end(self) -> None:
        self._process.hang_up()
        self._channel.wait_until_left()
        self._process.close()

    def _reload_for(self, sampling: Sampling, stop: Stop) -> float:
        """Before librkllmrt 1.3.0 sampling is taken at init only: where it differs, load the model with it. In a new
        worker: what the library took it may not give back. The seconds that it took."""
        setup = self.source.setup
        if self.loaded.sampling_per_run or sampling.plain() == setup.sampling.plain():
            return 0.0
        began = time.monotonic()
        self.settle(stop)
        self._end()
        with self._starting:
            if self._closed:
                raise Stopped
            self.source = replace(self.source, setup=replace(setup, sampling=sampling))
            self._begin()
        self.loaded = self._load_or_end(stop)
        took = time.monotonic() - began
        log.warning(
            "librkllmrt %s takes sampling at init: loaded the model again in %.1f s", self.loaded.version, took
        )
        return took

    def _load_or_end(self, stop: Stop | None) -> wire.Loaded:
        try:
            return self._load(stop)
        except BaseException:
            self._process.kill()
            self._process.close()
            raise

    def _load(self, stop: Stop | None) -> wire.Loaded:
        setup = replace(self.source.setup, scratch=str(self._process.scratch or ""))
        silence = Silence(self._patience.load_s)
        with self._failing(silence):
            self._channel.send(wire.Load(self.source.kind, setup))
            for message in self._listen(silence, stop):
                if isinstance(message, wire.Loaded):
                    return message
                self._tell(message)
                if isinstance(message, wire.Failed):
                    raise self._failures.refusal(message)
                if isinstance(message, wire.Progress):
                    silence.break_off()
                    self._on_event(Progress("load", message.done, message.total))
        raise AssertionError("messages end by raising only")

    def _job(self, make: Callable[[int], wire.Message], prompt: int, stop: Stop) -> Iterator[Part]:
        """What concerns one job, up to and including its end. `prompt`: tokens to read before the first."""
        self.settle(stop)
        self._number = number = self._number + 1
        silence = Silence(self._patience.prompt_s(prompt))
        estimate = Estimate(prompt, self.source.prompt_token_s, self._on_event)
        begun = ended = False
        try:
            with self._failing(silence), stop.told_to(lambda: self._abort(number)):
                if stop.wished:  # the worker would not know the job that it is to end
                    ended = True
                    raise Stopped
                self._channel.send(make(number))
                for message in self._listen(silence, stop, estimate.wait):
                    if getattr(message, "number", None) != number:
                        continue  # the tail of a job that was given up
                    estimate.end()
                    if isinstance(message, wire.Failed):
                        raise self._failures.refusal(message)
                    ended = isinstance(message, wire.Done)
                    begun = begun or isinstance(message, (wire.Tokens, wire.Rows))
                    self._tell(message)
                    yield from self._parts(message, silence)
                    if ended:
                        return
        except EngineError:
            ended = True
            raise
        except SystemExit:  # the interpreter exits: kill, do not wait for the abort
            ended = True
            self._process.kill()
            raise
        finally:
            if not ended:
                self._give_up(number, silence, begun)

    def _parts(self, message: wire.Message, silence: Silence) -> Iterator[Part]:
        """Set the patience by a message of the job, and hand it on if it is the caller's."""
        if isinstance(message, (wire.Tokens, wire.Rows)):
            silence.break_off(self._patience.token_s)
            yield message
        elif isinstance(message, wire.Done):
            yield message
        elif isinstance(message, wire.Progress):
            silence.break_off()
            self._on_event(Progress("prompt", message.done, message.total))

    def _tell(self, message: wire.Message) -> None:
        if isinstance(message, wire.Noticed):
            self._on_event(Noticed(message.cause, message.text))
        elif isinstance(message, wire.Heard):
            self._on_event(Heard(message.token, bytes.fromhex(message.text)))

    def _listen(
        self, silence: Silence, stop: Stop | None, on_wait: Callable[[float], object] = lambda seconds: None
    ) -> Iterator[wire.Message]:
        """Messages; a worker that somebody has stopped (SIGSTOP) cannot be silent."""
        was_stopped = False
        while True:
            try:
                yield from self._channel.messages(silence, stop, on_wait, lambda: self.alive)
            except Quiet:
                stopped = self._process.stopped
                if not (stopped or was_stopped):  # one that goes on again has its whole time for that
                    raise
                was_stopped = stopped
                silence.break_off()

    def _abort(self, number: int) -> None:
        with suppress(Gone):  # a worker that has died needs no stopping
            self._channel.send(wire.Abort(number))

    def _give_up(self, number: int, silence: Silence, begun: bool) -> None:
        """End a job whose caller has left, without waiting for it."""
        if number != self._number:  # an iterator that was kept: others have come after it
            return
        self._abort(number)
        if begun:  # else a prompt, or a load, is first read to its end
            silence.break_off(self._patience.abort_s)
        self._given_up = number, silence

    def settle(self, stop: Stop | None = None) -> None:
        """Wait for the end of a job that was given up; a worker that does not obey is killed.

        Raises WorkerDied or WorkerHung then, and Stopped.
        """
        if self._given_up is None:
            return
        number, silence = self._given_up
        with self._failing(silence):
            for message in self._listen(silence, stop):
                if getattr(message, "number", None) != number:
                    continue
                if isinstance(message, (wire.Done, wire.Failed)):
                    self._given_up = None
                    return
                if isinstance(message, wire.Progress):
                    silence.break_off()

    @contextmanager
    def _failing(self, silence: Silence) -> Iterator[None]:
        """Turn the ways in which a worker is lost into errors."""
        try:
            yield
        except Gone:
            raise self._failures.death() from None
        except Quiet:
            answers = self._answers_ping()
            self._process.kill()
            raise self._failures.hang(silence.limit_s, answers) from None
        except WireError:
            self._process.kill()
            raise

    def _answers_ping(self) -> bool:
        try:
            self._channel.send(wire.Ping(self._number))
            messages = self._channel.messages(Silence(self._patience.pong_s))
            return any(isinstance(m, wire.Pong) for m in messages)
        except (Gone, Quiet, WireError):
            return False
