"""How long a conversion takes and how much memory it needs, before it starts.

From people's reports: the CPU loads float32, so a parameter takes 4 bytes and a little (2B 8 GB, 4B 16, 8B 33.5, a
Gemma 4 E4B of 7.46 billion 30), and a billion parameters take 12 to 30 minutes on a PC (1.5B 20 to 30 minutes, 4B 30
to 60, 8B 2 to 4 hours).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma.toolkit.errors import EnvironmentFault
from rk_gemma_runtime.board import live

if TYPE_CHECKING:
    from rk_gemma_runtime.board.facts import Memory
    from rk_gemma_runtime.memory.shape import Shape

PER_PARAMETER = 4.2
BASE_BYTES = 1 << 30  # Python, torch and transformers
FASTEST, SLOWEST = 12.0, 30.0  # minutes for a billion parameters
GB = 1e9


@dataclass(frozen=True)
class Forecast:
    """`memory` in bytes; `minutes` from and to."""

    memory: int
    minutes: tuple[float, float]

    def __str__(self) -> str:
        return f"about {self.memory / GB:.1f} GB of memory and {_time(*self.minutes)}"


def forecast(shape: Shape, device: str) -> Forecast:
    """Predict a conversion. On a GPU the weights lie in its memory too, and how fast it is nobody has collected."""
    billions = shape.parameters / 1e9
    slow = FASTEST if device == "cuda" else SLOWEST
    return Forecast(BASE_BYTES + int(PER_PARAMETER * shape.parameters), (FASTEST * billions, slow * billions))


def check_memory(need: Forecast, force: bool) -> str:
    """Raise EnvironmentFault if memory and swap are less than needed, unless `force`: then return a warning."""
    there = free_memory()
    if there is None or need.memory <= there:
        return ""
    text = (
        f"the conversion needs about {need.memory / GB:.1f} GB of memory and {there / GB:.1f} GB are free (with swap)"
    )
    if force:
        return f"{text}; --force: the kernel may end it without a word"
    raise EnvironmentFault(
        f"{text}; add swap (`sudo fallocate -l {-(-need.memory // (1 << 30))}G /swapfile`, mkswap, swapon), use a"
        " larger machine, or try with --force"
    )


def free_memory() -> int | None:
    """Return the bytes that this process may still take, swap included; None where nobody tells."""
    memory: Memory = live.own_memory()
    if memory.available is None:
        return None
    return memory.available + (memory.swap_free or 0)


def _time(low: float, high: float) -> str:
    if high < 1:
        return "less than a minute"
    if high < 90:
        return f"{max(1, round(low))} to {round(high)} minutes"
    return f"{low / 60:.1f} to {high / 60:.1f} hours"
