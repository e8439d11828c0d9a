"""A loaded model: every call of the API as a Python method, with the rules of its version built in.

Callers see ids, bytes, NumPy arrays and numbers. Not thread-safe, except `abort` and `is_running`. Several sessions
may live in one process (from 1.2.2): give them different IOMMU domains, and open them one after the other.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.errors import NpuError, NpuReason, UsageError
from rk_gemma_runtime.librkllm.abi.layout import CallbackReturn, InferMode
from rk_gemma_runtime.librkllm.handle import AsyncRun, OpenHandle
from rk_gemma_runtime.librkllm.inputs import Embeddings, Input, Media, MultiModal, Prompt, Tokens, c_text
from rk_gemma_runtime.librkllm.options import GREEDY, InitOptions, Outcome, Perf, RkSampling, RunOptions
from rk_gemma_runtime.librkllm.rules import require, require_symbol
from rk_gemma_runtime.librkllm.supplied import Supplied

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rk_gemma_runtime.librkllm.library import Library
    from rk_gemma_runtime.librkllm.receiver import OnRows, OnStep, OnToken

__all__ = [
    "GREEDY", "AsyncRun", "CallbackReturn", "Embeddings", "InferMode", "InitOptions", "Input", "Media", "MultiModal",
    "Outcome", "Perf", "Prompt", "RkSampling", "RunOptions", "Session", "Supplied", "Tokens",
]  # fmt: skip


class Session:
    """One initialised model. `close` may be called twice; nothing else after it."""

    def __init__(self, library: Library, model: Path, options: InitOptions, supplied: Supplied | None = None) -> None:
        """Load the model; `supplied` for a file without tokenizer or embedding (from 1.3.0); blocks for seconds,
        and for a minute where it fails late.

        Raises NpuError (init refused), UnsupportedCall, UsageError; nothing is left open then.
        """
        options.check()
        self._lib, self.options = library, options
        self._cross: list[NDArray[Any]] = []
        if supplied is not None:
            require(library, "callbacks for tokenizer and embedding", lambda layout: layout.init_takes_struct)
        self._handle = OpenHandle(library, model, options, supplied or Supplied())

    def run(self, item: Input, on_token: OnToken, options: RunOptions | None = None) -> Outcome:
        """Generate. Blocks. `on_token(id, bytes)` is called for every token, from the library's thread; bytes may
        be empty or end inside a character. It may return PAUSE (from 1.2.1): the run comes back, the cache stays,
        and the next `run` appends its input to it. What it raises ends the run and is raised here. Raises
        NpuError."""
        self._alone()
        return self._handle.run([item], InferMode.GENERATE, options, on_token=self._check_pauses(on_token))

    def run_async(self, item: Input, on_token: OnToken, options: RunOptions | None = None) -> AsyncRun:
        """Run as `run` does, without blocking; `wait` for it before anything else (1.2.1 is known to hang here)."""
        self._alone()
        return self._handle.start(item, options, self._check_pauses(on_token))

    def run_batch(self, items: Sequence[Input], on_step: OnStep, options: RunOptions | None = None) -> Outcome:
        """Generate for as many inputs as `InitOptions.batch` says, together. `on_step` gets ((id, bytes), ...), one
        for each; a negative id is a sequence that has ended. From 1.2.1. Raises as `run`."""
        require(self._lib, "multi-batch runs", lambda layout: layout.has_batch)
        if len(items) != self.options.batch:
            raise UsageError(f"{len(items)} inputs for a session that was opened for {self.options.batch}")
        listen = self._handle.receiver.steps(on_step, len(items))
        return self._handle.run(items, InferMode.GENERATE, options, listen=listen)

    def hidden_states(self, item: Input, options: RunOptions | None = None) -> NDArray[Any]:
        """Compute float32 [tokens, hidden] after the last layer. Blocks. Raises NpuError."""
        return self._array(item, InferMode.LAST_HIDDEN_LAYER, options)

    def logits(self, item: Input, options: RunOptions | None = None) -> NDArray[Any]:
        """Compute float32 [tokens, vocabulary]; from 1.2.0. Blocks. Raises NpuError."""
        return self._array(item, InferMode.LOGITS, options)

    def rows(self, item: Input, mode: InferMode, on_rows: OnRows, options: RunOptions | None = None) -> None:
        """Hand out logits or hidden states in parts, `on_rows(float32 bytes, rows)`, for what is too large for one
        array."""
        if mode == InferMode.LOGITS:
            require(self._lib, "logits mode", lambda layout: layout.has_logits)
        self._alone()
        field = "logits" if mode == InferMode.LOGITS else "last_hidden_layer"
        listen = self._handle.receiver.rows(field, on_rows, self._lib.layout.releases_output)
        self._handle.run([item], mode, options, listen=listen)

    def abort(self) -> None:
        """Ask the run in progress to stop. From any thread but the callback's; returns at once. `run` then comes
        back; whether FINISH is heard before differs."""
        self._handle.abort()

    def is_running(self) -> bool:
        """Whether a run is going on, whichever value this release has for it. From any thread."""
        return self._handle.is_running()

    def load_adapter(self, name: str, path: Path, scale: float = 1.0) -> None:
        """Load a LoRA adapter for RunOptions.adapter; its scale is fixed from here on. Raises NpuError."""
        adapter = self._lib.layout.structs["RKLLMLoraAdapter"](os.fsencode(path), c_text(name), scale)
        self._handle.call("rkllm_load_lora", ctypes.byref(adapter))

    def load_prompt_cache(self, path: Path) -> None:
        """Take a cache that `RunOptions.save_cache` wrote; later runs reuse it from the first token on, as far as the
        ids agree. Raises NpuError for a missing, empty or foreign file."""
        self._handle.call("rkllm_load_prompt_cache", os.fsencode(path))

    def release_prompt_cache(self) -> None:
        """Drop it again; needed before another one is loaded. Raises NpuError."""
        self._handle.call("rkllm_release_prompt_cache")

    def clear(self, keep_system_prompt: bool = False) -> None:
        """Forget the conversation. Before 1.2.0 nothing is kept between runs and nothing is done. Raises NpuError."""
        if "rkllm_clear_kv_cache" in self._lib.layout.functions:
            positions = (None, None) if self._lib.layout.clears_ranges else ()
            self._handle.call("rkllm_clear_kv_cache", int(keep_system_prompt), *positions)

    def clear_range(self, *ranges: tuple[int, int]) -> None:
        """Remove positions [start, end) from the cache, one range for each sequence of the batch; only after a
        pause, in runs without keep_history. From 1.2.1. Raises NpuError."""
        require(self._lib, "ranges of the KV cache", lambda layout: layout.clears_ranges)
        if len(ranges) != self.options.batch:
            raise UsageError(f"{len(ranges)} ranges for a batch of {self.options.batch}")
        starts, ends = ((ctypes.c_int * len(ranges))(*side) for side in zip(*ranges, strict=True))
        self._handle.call("rkllm_clear_kv_cache", 0, starts, ends)

    def cache_sizes(self) -> tuple[int, ...]:
        """Count the tokens in the KV cache, for each sequence of the batch. From 1.2.1. Raises NpuError."""
        sizes = (ctypes.c_int * self.options.batch)()
        self._handle.call("rkllm_get_kv_cache_size", sizes)
        return tuple(sizes)

    def set_chat_template(self, system: str = "", prefix: str = "", postfix: str = "") -> None:
        """Replace the library's own template for text input; three empty texts switch it off. The KV cache is lost,
        so call it before the first run. From 1.2.0. Raises NpuError."""
        self._handle.call("rkllm_set_chat_template", c_text(system), c_text(prefix), c_text(postfix))

    def set_function_tools(self, system: str, tools: str, response: str) -> None:
        """Set tools for text input: a JSON list, and the text around a result (role "tool"). It replaces the system
        prompt. From 1.2.1. Raises NpuError, also if the template is switched off."""
        self._handle.call("rkllm_set_function_tools", c_text(system), c_text(tools), c_text(response))

    def set_cross_attention(self, k: NDArray[Any], v: NDArray[Any], mask: NDArray[Any], pos: NDArray[Any]) -> None:
        """Set an encoder's keys and values (float32), its mask (float32) and positions (int32), for custom models
        that were opened with `cross_attention`. From 1.2.1. Raises NpuError."""
        require_symbol(self._lib, "rkllm_set_cross_attn_params")
        import numpy as np

        kinds = (np.float32, np.float32, np.float32, np.int32)
        arrays = [np.ascontiguousarray(a, t) for a, t in zip((k, v, mask, pos), kinds, strict=True)]
        struct = self._lib.layout.structs["RKLLMCrossAttnParam"]
        fields = zip(arrays, struct._fields_[:4], strict=True)
        param = struct(*(array.ctypes.data_as(declared) for array, (_, declared) in fields), arrays[3].size)
        self._cross = arrays  # whether the library copies them is not documented
        self._handle.call("rkllm_set_cross_attn_params", ctypes.byref(param))

    def close(self) -> None:
        """Destroy the handle. Whatever the library calls after this is not heard."""
        self._handle.close()

    def _alone(self) -> None:
        """Raise UsageError for a single input to a session for batches: the library reads as many as it was opened
        for."""
        if self.options.batch != 1:
            raise UsageError(f"this session was opened for batches of {self.options.batch}; call run_batch")

    def _array(self, item: Input, mode: InferMode, options: RunOptions | None) -> NDArray[Any]:
        import numpy as np

        parts: list[tuple[bytes, int]] = []
        self.rows(item, mode, lambda data, count: parts.append((data, count)), options)
        count = sum(count for _, count in parts)
        if not count or (isinstance(item, Tokens) and count != len(item.ids)):
            raise NpuError(f"rkllm_run handed out {count} rows, not one for each token", NpuReason.RUN_FAILED)
        return np.concatenate([np.frombuffer(data, np.float32).reshape(count, -1) for data, count in parts])

    def _check_pauses(self, on_token: OnToken) -> OnToken:
        """Wrap `on_token`: if the library ignores what the callback returns, a pause is an error."""
        if self._lib.layout.can_pause:
            return on_token

        def checked(token: int, text: bytes) -> int:
            if on_token(token, text) is CallbackReturn.PAUSE:
                require(self._lib, "pause", lambda layout: layout.can_pause)
            return CallbackReturn.CONTINUE

        return checked
