"""The result callback: what the library calls, from its own thread, for each token."""

from __future__ import annotations

import ctypes
import logging
import threading
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.librkllm.abi.layout import CallbackReturn, CallState
from rk_gemma_runtime.librkllm.ends import Ends
from rk_gemma_runtime.librkllm.options import Perf

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma_runtime.librkllm.abi import Layout
    from rk_gemma_runtime.librkllm.supplied import Slot, Supplied

    OnToken = Callable[[int, bytes], Any]
    Listen = Callable[[int | None, int], int | None]
    OnStep = Callable[[tuple[tuple[int, bytes], ...]], int | None]
    OnRows = Callable[[bytes, int], object]

log = logging.getLogger(__name__)
ROWS_BYTES = 16 << 20
WAITING = int(CallState.WAITING)
PAUSE, RELEASE = CallbackReturn.PAUSE, CallbackReturn.RELEASE
# A raw address in place of POINTER(RKLLMResult): making that object would cost a third of a token's time.
Prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)


class Receiver:
    """One session's callback. Nothing is raised into C: what a listener raises is kept in `raised`, and `on_raise`,
    which must return at once, is called to stop the library.

    Tokens go to `on_token` if there is one; all else to `listen` with (address of RKLLMResult, LLMCallState). None
    hears nothing. A run's `number` travels as its userdata: what bears an earlier one is late, and is not heard.
    `Callbacks` lends receivers, and keeps them for the life of the process.
    """

    def __init__(self, layout: Layout) -> None:
        self.on_raise: Callable[[], object] = lambda: None
        self.on_token: OnToken | None = None
        self.listen: Listen | None = None
        self.raised: BaseException | None = None
        self.number = 0
        self._count: Callable[[int], None]
        self.end_id = -1
        self._supplied: list[Slot] = []
        self._ends = Ends()
        self._resume: OnToken | None = None  # on_token, while tokens are held
        self.ended = threading.Event()
        self.failed = self.paused = False
        self.perf: Perf | None = None
        self._result = layout.structs["RKLLMResult"]
        self._has_perf = layout.has_perf
        self.function = ctypes.cast(Prototype(self._make()), layout.result_callback)
        self.struct = (
            layout.structs["RKLLMCallback"](result_callback=self.function) if layout.init_takes_struct else None
        )

    def supply(self, supplied: Supplied, layout: Layout) -> None:
        """Set, before init, what else the library may call."""
        self._supplied = supplied.slots(layout, self._note)
        for slot in self._supplied:
            setattr(self.struct, slot.field, slot.function)

    def retire(self) -> None:
        """Hear nothing from now on, after destroy, and let go of what the session gave."""
        self.forget()
        for slot in self._supplied:
            slot.given = None
        self.on_raise = lambda: None

    def expect(self, listen: Listen | None = None, on_token: OnToken | None = None) -> int:
        """Listen, before a run; its number. Without `listen` only its end is heard."""
        self.raised, self.failed, self.paused, self.perf, self.end_id = None, False, False, None, -1
        self.ended.clear()
        self._ends.begin()
        self._resume = None
        self.number += 1
        self._count(self.number)
        self.listen, self.on_token = listen or self._hear_end, on_token
        return self.number

    def refused(self) -> None:
        """No end of this run will come: it returned an error."""
        self._ends.refuse()

    def forget(self) -> None:
        """Stop listening, after a run: whatever comes now is late."""
        try:
            self._hand_on(self._ends.close(self.ended.is_set()))
        except BaseException as error:  # as from the callback
            self._note(error)
        self.listen = self.on_token = self._resume = None

    def _make(self) -> Callable[[int | None, int | None, int], int]:
        """Make the function that C calls. Locals and one level: at this place a microsecond is paid for every
        token."""
        from_address, last, view, number = self._result.from_address, 0, None, 0

        def count(run: int) -> None:
            nonlocal number
            number = run

        def called(address: int | None, userdata: int | None, state: int) -> int:
            nonlocal last, view
            if userdata != number and userdata is not None and userdata < number:
                if state > WAITING:
                    self._ends.late()
                return 0
            try:
                on_token = self.on_token
                if on_token is not None and state <= WAITING:  # WAITING is a token too: its bytes come later
                    if address != last:  # nearly always the same place on the library's stack
                        if address is None:
                            return 0
                        last, view = address, from_address(address)
                    answer = on_token(view.token_id, view.text or b"")  # type: ignore[union-attr]
                else:
                    listen = self.listen or self._hear_late
                    answer = listen(address, state)
            except BaseException as error:  # the edge to C; Ctrl-C too is raised where the run was called
                log.debug("in the result callback", exc_info=True)
                return self._break(error)
            if answer is PAUSE:
                self.paused = True
                return 1
            return 2 if answer is RELEASE else 0  # nothing else means anything to the library

        self._count = count
        return called

    def _note(self, error: BaseException) -> None:
        self.raised = self.raised or error

    def _break(self, error: BaseException) -> int:
        """Keep the error and stop the library; only the end is still listened to."""
        self.raised = error
        self.listen, self.on_token, self._resume = self._hear_end, None, None
        self.on_raise()
        return 0

    def _hear_end(self, address: int | None, state: int) -> int:
        return self.end(address, state) if state in (CallState.FINISH, CallState.ERROR) else 0

    def _hear_late(self, address: int | None, state: int) -> None:
        """Hear what comes between runs."""
        if state in (CallState.FINISH, CallState.ERROR):
            self._ends.late()

    def end(self, address: int | None, state: int) -> int:
        """Take FINISH or ERROR. The layout's statistics hold at FINISH only."""
        news = self._ends.confirm()
        if self.ended.is_set() and not (news or self._ends.awaited):  # one too many
            return 0
        self.failed = state == CallState.ERROR
        if address and not self.failed:
            result = self._result.from_address(address)
            self.end_id = result.token_id
            if self._has_perf:
                p = result.perf
                self.perf = Perf(
                    p.prefill_tokens, p.prefill_time_ms, p.generate_tokens, p.generate_time_ms, p.memory_usage_mb
                )
        self.ended.set()
        if self.on_token is not None and self._resume is None:
            self._resume, self.on_token = self.on_token, self._hold
        return 0

    def _hold(self, token: int, text: bytes) -> None:
        """Keep a token that comes behind an end. They are handed on in the run's own thread only: in order."""
        ready, go_on = self._ends.hold(token, text)
        self._hand_on(ready)
        if go_on:
            self.on_token, self._resume = self._resume, None
            self.ended.clear()
            self.failed, self.perf, self.end_id = False, None, -1

    def _hand_on(self, held: list[tuple[int, bytes]]) -> None:
        """Hear what was held."""
        on_token = self._resume
        if on_token is not None:
            for token, text in held:
                on_token(token, text)

    def steps(self, on_step: OnStep, batch: int) -> Listen:
        """Make a listener for several sequences: one result each; a negative id is a sequence that has ended."""
        array = self._result * batch

        def listen(address: int | None, state: int) -> int | None:
            if state > CallState.WAITING:
                return self._hear_end(address, state)
            if not address:
                return 0
            return on_step(tuple((r.token_id, r.text or b"") for r in array.from_address(address)))

        return listen

    def rows(self, field: str, on_rows: OnRows, release: bool) -> Listen:
        """Make a listener for logits or hidden states: pointers live only inside the call, so rows are copied out."""

        def listen(address: int | None, state: int) -> int | None:
            if not address or state in (CallState.FINISH, CallState.ERROR):
                return self._hear_end(address, state)
            part = getattr(self._result.from_address(address), field)
            _copy_rows(part, on_rows)
            return CallbackReturn.RELEASE if release else CallbackReturn.CONTINUE

        return listen


def _copy_rows(part: Any, on_rows: OnRows) -> None:
    """Copy some rows at a time: a vocabulary of 256,000 is 1 MB a row."""
    values, width = (getattr(part, name) for name, _ in part._fields_[:2])
    if not values or part.num_tokens <= 0:
        return
    address, row = ctypes.cast(values, ctypes.c_void_p).value or 0, 4 * width
    step = max(1, ROWS_BYTES // max(1, row))
    for first in range(0, part.num_tokens, step):
        count = min(step, part.num_tokens - first)
        on_rows(ctypes.string_at(address + first * row, count * row), count)
