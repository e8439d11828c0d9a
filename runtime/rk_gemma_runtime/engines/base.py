"""What an engine is, and what goes in and comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

OnToken = Callable[[int, bytes], object]
"""Called with (token id, the bytes it prints) in the engine's thread. Must be quick and must not raise."""

OnRows = Callable[[bytes, int], object]
"""Called with (float32 values, rows)."""


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


class Engine(Protocol):
    """One backend with one model loaded. Used from one thread, except `abort`."""

    def generate(self, request: Request, on_token: OnToken) -> Finish:
        """Generate; blocks. An end id in `request.stop` is not handed out. Raises EngineError."""
        ...

    def rows(self, request: RowsRequest, on_rows: OnRows) -> None:
        """Logits or hidden states, in order; blocks. Raises EngineError where the backend cannot."""
        ...

    def abort(self) -> None:
        """Stop the generation in progress soon. From any thread."""
        ...

    def reset(self) -> None:
        """Forget every cached prompt."""
        ...

    def close(self) -> None:
        """Free the model. May be called twice."""
        ...
