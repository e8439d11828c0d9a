"""What an answer was: its ids, its text, its numbers, and whether it came from where it should."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Degraded:
    """Why the NPU did not answer: a cause id, one line that quotes the library, what to do. `diagnosis` is all that
    the rule book reads in the library's lines, as `rk-gemma explain --json` gives it, or None if there were none."""

    cause: str
    message: str
    remedy: str
    diagnosis: dict[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """A finished answer. `ttft_s` is seconds to the first token (0 without one); `finish_reason` is stop, length
    or abort; `tokens_per_second` counts from the first token on (0 for fewer than two). `reload_s`: seconds spent on
    loading the model again, where librkllmrt takes sampling at init only (before 1.3.0)."""

    ids: tuple[int, ...]
    text: str
    backend: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    ttft_s: float
    tokens_per_second: float
    degraded: Degraded | None
    reload_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON; seconds rounded to the microsecond."""
        tree = asdict(self)
        tree["ids"] = list(self.ids)
        tree["ttft_s"] = round(self.ttft_s, 6)
        tree["reload_s"] = round(self.reload_s, 6)
        tree["tokens_per_second"] = round(self.tokens_per_second, 2)
        return tree
