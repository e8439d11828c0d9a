"""The chunks of one completion of llama.cpp, as tokens."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import EngineError
from rk_gemma_runtime.jobs import Finish

if TYPE_CHECKING:
    from rk_gemma_runtime.engines.base import OnProgress, OnToken
    from rk_gemma_runtime.jobs import Request
    from rk_gemma_runtime.stop import Stop


class Stream:
    """Reads the chunks of one completion."""

    def __init__(self, request: Request, on_token: OnToken, on_progress: OnProgress, stop: Stop) -> None:
        self._request, self._forward, self._progress, self._wish = request, on_token, on_progress, stop
        self._stop = frozenset(request.stop)
        self._count = 0
        self._seen = 0
        self._reason = ""
        self._error = ""
        self._timings: dict[str, float] = {}
        self._start = time.perf_counter()

    def on_chunk(self, chunk: bytes) -> bool:
        """Called by llama.cpp; True ends the completion."""
        data = json.loads(chunk)
        if "choices" not in data:
            self._error = str(data.get("error", data).get("message", data))
            return True
        reading = data.get("prompt_progress")
        if reading and not self._count:
            self._progress(int(reading["processed"]), int(reading["total"]))
        choice = data["choices"][0]
        self._timings = data.get("timings") or self._timings
        born = int(self._timings.get("predicted_n", 0)) - self._seen
        self._seen += born
        for entry in (choice.get("logprobs") or {}).get("content") or ():
            self._token(entry["id"], bytes(entry.get("bytes") or ()), born)
        self._reason = self._reason or choice["finish_reason"] or ""
        if self._wish.wished and not self._reason:
            self._reason = "abort"
        return self._wish.wished or self._reason == "stop"

    def finish(self) -> Finish:
        """The account. Raises EngineError if the completion was refused."""
        if self._error:
            raise EngineError(f"llama.cpp refused the request: {self._error}")
        t = self._timings
        if self._wish.wished:
            self._reason = self._reason or "abort"
        elapsed = time.perf_counter() - self._start
        return Finish(
            self._reason or "stop",
            len(self._request.ids),
            int(t.get("cache_n", 0)),
            self._count,
            t.get("prompt_ms", 0.0) / 1000,
            t.get("predicted_ms", elapsed * 1000) / 1000,
        )

    def _token(self, token: int, raw: bytes, born: int) -> None:
        """Hand out what a chunk holds: the token and, before it, byte pieces that had not ended a character.

        llama.cpp holds those back and names the last one only; `raw` begins with the bytes of the others, one each.
        Their ids are for the chat room to find: -1 - byte.
        """
        if self._reason:
            return
        if token in self._stop:
            self._reason = "stop"
            return
        held = max(0, born - 1)
        for value in raw[:held]:
            self._forward(-1 - value)
        self._forward(token)
        self._count += held + 1
