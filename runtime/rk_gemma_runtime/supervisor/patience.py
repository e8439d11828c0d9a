"""How much silence is borne, by what a worker is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rk_gemma_runtime.options import Limits

SLOWER_THAN_PLANNED = 10


class Patience:
    """Seconds. `file_bytes` of the model; `prompt_token_s`: seconds per token of a prompt by the plan, 0 without
    one."""

    def __init__(self, limits: Limits, file_bytes: int, prompt_token_s: float) -> None:
        self.token_s, self.abort_s, self.pong_s = limits.token_s, limits.abort_s, limits.pong_s
        # For the whole file again after each sign: the last may be the last byte read, and the library then goes
        # through all of it once more.
        self.load_s = limits.load_s + file_bytes / max(1.0, limits.load_bytes_s)
        self._first_s = limits.first_token_s
        self._prompt_token_s = max(limits.prompt_token_s, SLOWER_THAN_PLANNED * prompt_token_s)

    def prompt_s(self, tokens: int) -> float:
        """From the start of a job, or its last progress, to its first token."""
        return self._first_s + tokens * self._prompt_token_s
