"""The CPU engine: llama.cpp through xllamacpp, called inside this process.

xllamacpp's Server insists on listening somewhere. It gets a Unix socket in a private directory, and the socket's
name is removed when the model is loaded, so nobody can connect: requests are made by calling the object.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.engines.base import Engine, OnProgress, OnRows, OnToken
from rk_gemma_runtime.engines.cpustream import Stream
from rk_gemma_runtime.engines.readahead import read_ahead
from rk_gemma_runtime.engines.scratch import private_directory
from rk_gemma_runtime.engines.spinning import Spinning
from rk_gemma_runtime.errors import EngineError

if TYPE_CHECKING:
    from rk_gemma_runtime.jobs import Finish, Request, RowsRequest, Setup
    from rk_gemma_runtime.stop import Stop

# Tokens of a prompt that are read between two looks at whether the answer is still wanted. A small model reads 512 a
# twentieth faster than 128; from 2 B on there is no difference, and a batch would take minutes on a slow machine.
BATCHES = (512, 256, 128)
BATCH_WORK = 300e9  # tokens times bytes of the file
SOCKET = "s.sock"  # llama.cpp takes a host name for a Unix socket by this ending only


class CpuEngine(Engine):
    """Generates on the CPU from a GGUF file."""

    def __init__(self, setup: Setup) -> None:
        """Load the model; blocks. The scratch directory is made, and gone when this returns. Raises EngineError."""
        self._forget = False
        self._context = setup.context
        self._adapters = tuple(name for name, _ in setup.adapters)
        scratch = Path(setup.scratch)
        read_ahead(setup.model)
        self._spinning = Spinning(setup.threads)
        try:
            self._server = _quiet_server(_parameters(setup, scratch / SOCKET), scratch)
        except RuntimeError as error:
            raise EngineError(
                f"{setup.model}: llama.cpp could not load it; `rk-gemma inspect --verify` tells whether it is whole"
            ) from error

    def generate(self, request: Request, on_token: OnToken, on_progress: OnProgress, stop: Stop) -> Finish:
        stream = Stream(request, on_token, on_progress, stop)
        if stop.wished:
            return stream.finish()
        body = _body(request, request.room(self._context), not self._forget)
        if self._adapters:
            body["lora"] = self._scales(request)
        self._forget = False
        with self._spinning.watched():
            self._server.handle_completions(json.dumps(body).encode(), stream.on_chunk)
        return stream.finish()

    def rows(self, request: RowsRequest, on_rows: OnRows) -> None:
        raise EngineError(f"the CPU backend hands out no {'hidden states' if request.hidden else 'logits'}")

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


def batch_for(file_bytes: int) -> int:
    """Tokens in a batch of a prompt."""
    return next((n for n in BATCHES if n * file_bytes <= BATCH_WORK), BATCHES[-1])


def _parameters(setup: Setup, socket: Path) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = _utf8_path(setup.model)
    params.lora_adapters = [_adapter(path) for _, path in setup.adapters]
    params.n_ctx = setup.context
    params.n_batch = params.n_ubatch = batch_for(os.path.getsize(setup.model))
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

    with private_directory(scratch):
        server = xllamacpp.Server(params)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
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
        # A chunk after each batch of the prompt: the only place where a completion can be ended meanwhile.
        "return_progress": True,
    }
