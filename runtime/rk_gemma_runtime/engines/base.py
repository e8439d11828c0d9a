"""What an engine is. It runs in a worker process and knows ids, not text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rk_gemma_runtime.jobs import Finish, Request, RowsRequest
    from rk_gemma_runtime.stop import Stop

OnToken = Callable[[int], object]
"""Called with a token id in the engine's thread. Must be quick and must not raise. -1-b is a byte b whose piece id
the engine was not told."""

OnRows = Callable[[bytes, int], object]
"""Called with (float32 values, rows)."""

OnProgress = Callable[[int, int], object]
"""Called with (prompt tokens that have been read, prompt tokens) while a prompt is read."""


Notice = tuple[str, str]
"""What a person should know of an engine that works all the same: a cause and a sentence."""


class Engine(Protocol):
    """One backend with one model loaded. Used from one thread; a `Stop` may be wished from any."""

    def generate(self, request: Request, on_token: OnToken, on_progress: OnProgress, stop: Stop) -> Finish:
        """Generate; blocks. An end id in `request.stop` is not handed out. Ends soon after `stop` is wished, also if
        that was before the call. Raises EngineError."""
        ...

    def rows(self, request: RowsRequest, on_rows: OnRows) -> None:
        """Logits or hidden states, in order; blocks. Raises EngineError where the backend cannot."""
        ...

    def reset(self) -> None:
        """Forget every cached prompt."""
        ...

    def take_notices(self) -> tuple[Notice, ...]:
        """What has come up since the last call."""
        return ()

    def take_heard(self) -> tuple[tuple[int, bytes], ...]:
        """Some ids, and the text that the library gave for each, since the last call."""
        return ()

    def close(self) -> None:
        """Free the model. May be called twice."""
        ...
