"""A library's receivers: lent to sessions, and kept for the life of the process."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from rk_gemma_runtime.librkllm.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma_runtime.librkllm.abi import Layout

RESTING = 16


class Callbacks:
    """A pool of receivers. The library may call late, also after destroy, so none is ever dropped: one that was taken
    back rests until RESTING others were taken back after it, and is then lent again. Not thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lent: set[Receiver] = set()
        self._resting: deque[Receiver] = deque()

    def lend(self, on_raise: Callable[[], object]) -> Receiver:
        """Lend a receiver to one session; `on_raise` as Receiver has it. Give it back with `take_back`."""
        receiver = self._resting.popleft() if len(self._resting) > RESTING else Receiver(self._layout)
        receiver.on_raise = on_raise
        self._lent.add(receiver)
        return receiver

    def take_back(self, receiver: Receiver) -> None:
        """Call it after destroy. The receiver hears nothing from now on."""
        receiver.retire()
        self._lent.remove(receiver)
        self._resting.append(receiver)
