"""What a worker is asked and what it answers: plain values, known on both sides of the wire."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from rk_gemma_runtime.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. temperature 0 is greedy. repeat_penalty 1 and penalties 0 do nothing; the
    vendor's own default of 1.1 is not ours."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0

    def check(self) -> Sampling:
        """Itself. Raises UsageError for what is not a number, or cannot be meant."""
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UsageError(f"{one.name}: {value!r} is not a number")
        least = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        low = next((name for name, value in least.items() if value < 0), None)
        if low is not None or self.top_k != int(self.top_k) or self.repeat_penalty <= 0:
            raise UsageError(f"{low or 'top_k or repeat_penalty'} is out of its range: {self}")
        return self


@dataclass(frozen=True)
class Setup:
    """What an engine needs to open. `context` in tokens; `library` an explicit librkllmrt.so or ""; `sampling` is
    what the first request will probably ask for (some libraries take it at init only); `domain` the first IOMMU
    domain; `adapters` (name, file) that requests may name; `scratch` a directory that does not exist yet."""

    model: str
    context: int
    threads: int = 1
    scratch: str = ""
    library: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    domain: int = 0
    adapters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Request:
    """One generation. `ids` is the whole prompt: the engine prefills only what its cache lacks. `adapter`: the name
    of a LoRA adapter of the Setup, or "" for the model as it is."""

    ids: tuple[int, ...]
    max_tokens: int
    stop: tuple[int, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    adapter: str = ""
    adapter_scale: float = 1.0

    def room(self, context: int) -> int:
        """Tokens that may be generated where prompt and answer share `context`."""
        return min(self.max_tokens, context - len(self.ids))


@dataclass(frozen=True)
class RowsRequest:
    """Logits of every position of `ids`, or the hidden states after the last layer; the adapter as in Request."""

    ids: tuple[int, ...]
    hidden: bool = False
    adapter: str = ""
    adapter_scale: float = 1.0


@dataclass(frozen=True)
class Finish:
    """How a generation ended: stop (an end id), length (max_tokens or the context), or abort.

    `new_tokens` are the tokens handed out, end id not counted. Times in seconds; 0 if nothing was done. `reload_s`:
    the model had to be loaded again for this request's sampling.
    """

    reason: str
    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    prefill_s: float
    decode_s: float
    reload_s: float = 0.0
