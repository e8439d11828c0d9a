"""What a model tells while it works, beside its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Degraded:
    """Why the NPU did not answer: a cause id, one line that quotes the library, what to do. `diagnosis` is all that
    the rule book reads in the library's lines, as `rk-gemma explain --json` gives it, or None if there were none.
    `retry_at`: when the NPU is tried again, in seconds since the epoch, or None if it is not."""

    cause: str
    message: str
    remedy: str
    diagnosis: dict[str, Any] | None = None
    retry_at: float | None = None


@dataclass(frozen=True)
class Recovered:
    """The NPU has loaded again, after it had been refused; the next answer comes from it."""

    after_s: float


@dataclass(frozen=True)
class Applied:
    """A remedy that was applied: which one, and what was changed to what, in words."""

    remedy: Literal["nofile", "domain", "context"]
    text: str


@dataclass(frozen=True)
class Progress:
    """How far a load or the reading of a prompt is. `total` in bytes for a load and in tokens for a prompt.
    `estimated`: by the plan's speed and the clock, because the NPU does not tell."""

    what: Literal["load", "prompt"]
    done: int
    total: int
    estimated: bool = False


@dataclass(frozen=True)
class Noticed:
    """Something about the library or the bundle that a person should know. Answers go on."""

    cause: Literal["extra_bos", "prompt_margin", "other_tokenizer"] | str
    message: str


@dataclass(frozen=True)
class Heard:
    """A token and the text that the library gave for it: for `Model`, which compares."""

    token: int
    text: bytes


Event = Degraded | Recovered | Applied | Progress | Noticed
