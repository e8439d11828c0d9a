"""The CPU engine: llama.cpp through xllamacpp, called inside this process.

xllamacpp's Server insists on listening somewhere. It gets a Unix socket in a private directory, and the socket's
name is removed when the model is loaded, so nobody can connect: requests are made by calling the object.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

from rk_gemma_runtime.engines.base import Engine, Finish, OnRows, OnToken, Request, RowsRequest, Setup
from rk_gemma_runtime.errors import EngineError

SOCKET = "unused.sock"  # llama.cpp takes a host name for a Unix socket by this ending only


class CpuEngine(Engine):
    """Generates on the CPU from a GGUF file."""

    def __init__(self, setup: Setup) -> None:
        """Load the model; blocks. The scratch directory is made, and gone when this returns. Raises EngineError."""
        self._abort = threading.Event()
        self._forget = False
        self._context = setup.context
        self._adapters = tuple(name for name, _ in setup.adapters)
        scratch = Path(setup.scratch)
        try:
            self._server = _quiet_server(_parameters(setup, scratch / SOCKET), scratch)
        except RuntimeError as error:
            raise EngineError(
                f"{setup.model}: llama.cpp could not load it; `rk-gemma inspect --verify` tells whether it is whole"
            ) from error

    def generate(self, request: Request, on_token: OnToken) -> Finish:
        self._abort.clear()
        stream = _Stream(request, on_token, self._abort)
        body = _body(request, min(request.max_tokens, self._context - len(request.ids)), not self._forget)
        if self._adapters:
            body["lora"] = self._scales(request)
        self._forget = False
        self._server.handle_completions(json.dumps(body).encode(), stream.on_chunk)
        return stream.finish()

    def rows(self, request: RowsRequest, on_rows: OnRows) -> None:
        raise EngineError(f"the CPU backend hands out no {'hidden states' if request.hidden else 'logits'}")

    def abort(self) -> None:
        self._abort.set()

    def reset(self) -> None:
        self._forget = True

    def close(self) -> None:
        self._server = None

    def _scales(self, request: Request) -> list[dict[str, Any]]:
        """Every adapter is loaded; a request switches them by their scales."""
        if request.adapter and request.adapter not in self._adapters:
            raise EngineError(f"no adapter {request.adapter!r} here")
        return [
            {"id": number, "scale": request.adapter_scale if name == request.adapter else 0.0}
            for number, name in enumerate(self._adapters)
        ]


def _parameters(setup: Setup, socket: Path) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = _utf8_path(setup.model)
    params.lora_adapters = [_adapter(path) for _, path in setup.adapters]
    params.n_ctx = setup.context
    params.n_parallel = 1
    params.warmup = False
    params.fit_params = False
    params.ctx_shift = False
    # Gemma 2's window layers must keep what left the window, or a second turn prefills everything again.
    params.swa_full = True
    params.cache_ram_mib = 0
    params.verbosity = 0  # errors only
    params.ui = False
    params.hostnames = [str(socket)]
    params.n_threads_http = 1
    params.cpuparams.n_threads = setup.threads
    params.cpuparams_batch.n_threads = setup.threads
    params.cpuparams.poll = 0  # threads that wait must not keep a board's cores busy
    return params


def _adapter(path: str) -> Any:
    import xllamacpp

    adapter = xllamacpp.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = _utf8_path(path), 0.0
    return adapter


def _utf8_path(path: str) -> str:
    """xllamacpp takes UTF-8 only; a path that is none is handed over as an open descriptor."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return f"/proc/self/fd/{os.open(path, os.O_RDONLY)}"
    return path


def _quiet_server(params: Any, scratch: Path) -> Any:
    """Start the server object; remove its socket's name; take back the signals that it takes."""
    import xllamacpp

    scratch.mkdir(mode=0o700)
    try:
        server = xllamacpp.Server(params)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return server


def _body(request: Request, limit: int, reuse: bool) -> dict[str, Any]:
    s = request.sampling
    return {
        "prompt": list(request.ids),
        "max_tokens": limit,
        "stream": True,
        "cache_prompt": reuse,
        "ignore_eos": not request.stop,
        "temperature": s.temperature,
        "top_k": s.top_k,
        "top_p": s.top_p,
        "min_p": 0.0,
        "repeat_penalty": s.repeat_penalty,
        "frequency_penalty": s.frequency_penalty,
        "presence_penalty": s.presence_penalty,
        # The ids of the tokens come with their probabilities only; after sampling these are cheap.
        "logprobs": 1,
        "post_sampling_probs": True,
        # How many tokens a chunk stands for, and the numbers of an answer that is cut off.
        "timings_per_token": True,
    }


class _Stream:
    """Reads the chunks of one completion."""

    def __init__(self, request: Request, on_token: OnToken, abort: threading.Event) -> None:
        self._request, self._forward, self._abort = request, on_token, abort
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
        choice = data["choices"][0]
        self._timings = data.get("timings") or self._timings
        born = int(self._timings.get("predicted_n", 0)) - self._seen
        self._seen += born
        for entry in (choice.get("logprobs") or {}).get("content") or ():
            self._token(entry["id"], bytes(entry.get("bytes") or ()), born)
        self._reason = self._reason or choice["finish_reason"] or ""
        if self._abort.is_set() and not self._reason:
            self._reason = "abort"
        return self._abort.is_set() or self._reason == "stop"

    def finish(self) -> Finish:
        """The account. Raises EngineError if the completion was refused."""
        if self._error:
            raise EngineError(f"llama.cpp refused the request: {self._error}")
        t = self._timings
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

        llama.cpp holds those back and names the last one only; `raw` is the bytes of all `born` of them, one byte
        each but for the last. Their ids are for the chat room to find: -1 - byte.
        """
        if self._reason:
            return
        if token in self._stop:
            self._reason = "stop"
            return
        held = max(0, born - 1)
        for value in raw[:held]:
            self._forward(-1 - value, bytes([value]))
        self._forward(token, raw[held:])
        self._count += held + 1
