"""What an answer was: its ids, its text, its numbers, and whether it came from where it should."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.chat.text import TextStream
from rk_gemma_runtime.events import Degraded
from rk_gemma_runtime.jobs import Finish

if TYPE_CHECKING:
    from rk_gemma_runtime.chat.tokenizer import Tokenizer

__all__ = ["Answer", "Degraded", "Record"]


@dataclass(frozen=True)
class Answer:
    """A finished answer. `ttft_s` is seconds to the first token (0 without one); `finish_reason` is stop, length
    or abort; `tokens_per_second` counts from the first token on (0 for fewer than two). `reload_s`: seconds spent on
    loading the model again, where librkllmrt takes sampling at init only (before 1.3.0). `backend` is the one that
    ended it; `made_by` says how many tokens each made, in order: two where the CPU went on."""

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
    made_by: tuple[tuple[str, int], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON; seconds rounded to the microsecond."""
        tree = asdict(self)
        tree["ids"] = list(self.ids)
        tree["made_by"] = dict(self.made_by)
        tree["ttft_s"] = round(self.ttft_s, 6)
        tree["reload_s"] = round(self.reload_s, 6)
        tree["tokens_per_second"] = round(self.tokens_per_second, 2)
        return tree


class Record:
    """Collects one answer while it is made. Without a tokenizer there are ids and no text."""

    def __init__(self, tokenizer: Tokenizer | None, prompt_tokens: int = 0) -> None:
        self._tokenizer, self._prompt_tokens = tokenizer, prompt_tokens
        self._stream = TextStream()
        self._ids: list[int] = []
        self._made_by: dict[str, int] = {}
        self._text: list[str] = []
        self._start = time.perf_counter()
        self._first = self._latest = self._start
        self._finish: Finish | None = None

    def tokens(self, ids: tuple[int, ...], backend: str) -> str:
        """Add tokens that a backend made; the text that is complete by them."""
        self._made_by[backend] = self._made_by.get(backend, 0) + len(ids)
        self._latest = time.perf_counter()
        if not self._ids:
            self._first = self._latest
        tokenizer = self._tokenizer
        if tokenizer is None:
            self._ids += ids
            return ""
        known = [token if token >= 0 else tokenizer.byte_id(-1 - token) for token in ids]
        self._ids += known
        return self._add(self._stream.feed(b"".join(map(tokenizer.piece_bytes, known))))

    def finish(self, finish: Finish) -> str:
        """Add the end; the text that had waited for more bytes."""
        self._finish = finish
        return self._add(self._stream.finish())

    def answer(self, backend: str, degraded: Degraded | None) -> Answer:
        """The account; an answer that was cut off counts what came."""
        done = self._finish or Finish("abort", self._prompt_tokens, 0, len(self._ids), 0.0, 0.0)
        count = len(self._ids)
        return Answer(
            ids=tuple(self._ids),
            text="".join(self._text),
            backend=backend,
            finish_reason=done.reason,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=done.cached_tokens,
            new_tokens=count,
            ttft_s=self._first - self._start if count else 0.0,
            tokens_per_second=self._rate(),
            degraded=degraded,
            reload_s=done.reload_s,
            made_by=tuple(self._made_by.items()),
        )

    def _rate(self) -> float:
        """Tokens per second after the first, by the engine's clock; by ours where the answer was cut off."""
        done = self._finish
        if done is not None and done.new_tokens > 1 and done.decode_s > 0:
            return (done.new_tokens - 1) / done.decode_s
        count, span = len(self._ids), self._latest - self._first
        return (count - 1) / span if count > 1 and span > 0 else 0.0

    def _add(self, text: str) -> str:
        if text:
            self._text.append(text)
        return text
