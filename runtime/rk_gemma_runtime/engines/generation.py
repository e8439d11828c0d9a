"""One generation on the NPU: what is handed out, and where it ends whether or not the library ends it there."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from rk_gemma_runtime.jobs import Finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma_runtime.engines.base import OnToken
    from rk_gemma_runtime.jobs import Request

EARS = 16  # tokens of which some are noted
NEVER = 1 << 62
UNWANTED = 2  # tokens after an abort that show that it was not heard
GRACE_S = 1.0  # from an end token to the end of the run, before the library is told to stop


class Generation:
    """Counts tokens, and has the library stop where it does not by itself.

    An abort that comes when a run has just ended may hit the next one. So an end token, and a limit that the library
    knows, are followed by an abort only if more tokens come or if nothing comes for a while.
    """

    def __init__(
        self, request: Request, on_token: OnToken, context: int, vocab: int,
        halt: Callable[[], object], limits_itself: bool,
    ) -> None:  # fmt: skip
        """`halt` aborts the run, from any thread. `vocab`: ids from there on are not the model's; 0: not known."""
        self._request, self._forward, self._halt_library = request, on_token, halt
        self._stop, self._vocab = frozenset(request.stop), vocab or 1 << 31
        self.limit = request.room(context)
        self._cut = 0 if limits_itself else self.limit
        self._counted: Callable[[], int] = lambda: 0
        self._reason = ""
        self._start = time.perf_counter()
        self._first: float | None = None
        self._halting: threading.Thread | None = None
        self._settling = threading.Lock()
        self._over = threading.Event()
        self._unwanted = 0
        self.heard: list[tuple[int, bytes]] = []
        """Some of the first tokens, with the text that the library gave for each."""
        self.odd = 0
        """Ids that are not the model's and were passed over."""
        self.halted = False
        """Whether the library was told to stop."""

    @property
    def ended(self) -> bool:
        """Whether its end has been seen or wished here."""
        return bool(self._reason)

    @property
    def count(self) -> int:
        """Tokens handed out."""
        return self._counted()

    def listener(self) -> Callable[[int, bytes], None]:
        """What the library's thread calls for a token. After the end, tokens are dropped."""
        stop, vocab, limit, cut = self._stop, self._vocab, self.limit, self._cut
        forward, count, next_ear = self._forward, 0, 0

        def on_token(token: int, text: bytes) -> None:  # at this place a tenth of a microsecond counts
            nonlocal count, next_ear
            if self._reason:
                self._halt_again()
            elif token in stop:
                self._reason = "stop"
                self._halt(GRACE_S)
            elif 0 <= token < vocab:
                if count == next_ear:
                    next_ear = self._hear(count, token, text)
                count += 1
                forward(token)
                if count == limit:
                    self._reason = "length"
                    self._halt(0.0 if count == cut else GRACE_S)
            else:
                self.odd += 1

        self._counted = lambda: count
        return on_token

    def _hear(self, count: int, token: int, text: bytes) -> int:
        """Note a token in front of which there were so many; which one to note next."""
        if not count:
            self._first = time.perf_counter()
        if text:
            self.heard.append((token, text))
        return max(1, 2 * count) if count < EARS else NEVER

    def abort(self) -> None:
        """End it here and now. From any thread."""
        if not self._reason:
            self._reason = "abort"
            self._halt(0.0)

    def settle(self) -> None:
        """After the run: nothing that this has started can hit the next one, unless the library blocks it."""
        with self._settling:
            self._over.set()
            halting = self._halting
        if halting is not None:
            halting.join(GRACE_S)

    def finish(self, cached: int, prefill_s: float | None) -> Finish:
        """The account. A run that was not ended here was ended by the library: at the limit, or at an end id."""
        now, count = time.perf_counter(), self.count
        first = self._first or now
        prefill = prefill_s if prefill_s is not None else first - self._start
        return Finish(self._reason or "stop", len(self._request.ids), cached, count, prefill, now - first)

    def _halt(self, after_s: float) -> None:
        with self._settling:
            if not self._over.is_set():
                # Not from inside the callback: whether the library allows that is not known.
                self._halting = threading.Thread(target=self._halt_after, args=(after_s,), daemon=True)
                self._halting.start()

    def _halt_after(self, seconds: float) -> None:
        if not self._over.wait(seconds):
            self.halted = True
            self._halt_library()

    def _halt_again(self) -> None:
        """A token still comes. One was on its way; with a second there was no abort yet, or it was there before the
        library had begun. One abort too many may hit the next run."""
        with self._settling:
            waiting = self._halting is not None and self._halting.is_alive() and self.halted
            self._unwanted += not waiting
        if not waiting and self._unwanted % UNWANTED == 0:
            self._halt(0.0)
