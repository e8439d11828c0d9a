"""How far the NPU is with a prompt, by the plan's speed: the library does not tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.events import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_S = 1.0  # shorter ones are not worth a word


class Estimate:
    """Of one job. `tokens` to read, each in `token_s` seconds; 0 where there is no plan."""

    def __init__(self, tokens: int, token_s: float, tell: Callable[[Progress], object]) -> None:
        self._tokens, self._token_s, self._tell = tokens, token_s, tell
        self._wanted = tokens * token_s > LEAST_S
        self._waited = 0.0

    def wait(self, seconds: float) -> None:
        """So long nothing has come."""
        self._waited += seconds
        if self._wanted:
            done = min(self._tokens - 1, int(self._waited / self._token_s))
            self._tell(Progress("prompt", done, self._tokens, estimated=True))

    def end(self) -> None:
        """The prompt has been read."""
        self._wanted = False
