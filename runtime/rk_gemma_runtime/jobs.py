"""What a worker is asked and what it answers: plain values, known on both sides of the wire."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rk_gemma_runtime.checks import number, whole

MOST = 100.0  # of a temperature or a penalty: far beyond any use


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    temperature: 0 (greedy) to 100. top_k: so many likeliest tokens; 0 is all. top_p: 0 (greedy) to 1 (all).
    repeat_penalty: 0.01 to 100; 1 does nothing, and the vendor's own default of 1.1 is not ours. frequency_penalty,
    presence_penalty: -100 to 100; 0 does nothing.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0

    def plain(self) -> Sampling:
        """The same, with nothing in it that means nothing: two that choose alike are equal."""
        return replace(self, temperature=0.0, top_k=1, top_p=1.0) if self.greedy else self

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.temperature <= 0 or self.top_p <= 0 or self.top_k == 1

    def check(self) -> Sampling:
        """The same in Python's own kinds. Raises UsageError for what is not a number, or out of its range."""
        return Sampling(
            number("temperature", self.temperature, 0, MOST),
            whole("top_k", self.top_k),
            number("top_p", self.top_p, 0, 1),
            number("repeat_penalty", self.repeat_penalty, 1 / MOST, MOST),
            number("frequency_penalty", self.frequency_penalty, -MOST, MOST),
            number("presence_penalty", self.presence_penalty, -MOST, MOST),
        )


@dataclass(frozen=True)
class Setup:
    """What an engine needs to open. `context` in tokens; `library` an explicit librkllmrt.so or ""; `sampling` is
    what the first request will probably ask for (some libraries take it at init only); `domain` the first IOMMU
    domain; `adapters` (name, file) that requests may name; `scratch` a directory that does not exist yet; `vocab` the
    number of ids; `prove` ids that a load is tried with, <bos> first, or none; `device` the NPU's node or ""; `needs`
    the oldest release of the library that reads the model, or ""."""

    model: str
    context: int
    threads: int = 1
    scratch: str = ""
    library: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    domain: int = 0
    adapters: tuple[tuple[str, str], ...] = ()
    vocab: int = 0
    prove: tuple[int, ...] = ()
    device: str = ""
    needs: str = ""


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
