"""llama.cpp in a process of its own: it takes over signals. Greedy ids, and the logits before each of them.

As a program: JSON on stdin (a prompt and jobs of [model, adapter or null, scale]; with `chat`: a model, conversations
and a length), a JSON list of answers on stdout.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from hosttools import environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

NEW = 8  # tokens of an answer


class Answer(NamedTuple):
    ids: list[int]
    logprobs: NDArray[np.float64]  # [NEW, vocab]


def answers(prompt: list[int], jobs: Iterable[tuple[Path, Path | None, float]]) -> list[Answer]:
    """One answer of NEW tokens for each model with its adapter at its scale."""
    asked = json.dumps([prompt, [[str(model), lora and str(lora), scale] for model, lora, scale in jobs]])
    done = subprocess.run(
        [sys.executable, __file__],
        input=asked.encode(),
        capture_output=True,
        env=environment(),
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [Answer(ids, np.array(rows)) for ids, rows in json.loads(done.stdout)]


def conversations(model: Path, chats: list[list[dict[str, str]]], new: int) -> list[tuple[str, int, str]]:
    """The answer to each conversation by the template in the file: text, length of the prompt, why it ended."""
    asked = json.dumps([str(model), chats, new])
    done = subprocess.run(
        [sys.executable, __file__, "chat"], input=asked.encode(), capture_output=True, env=environment(), check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return [(text, count, reason) for text, count, reason in json.loads(done.stdout)]


def main() -> None:
    if sys.argv[1:] == ["chat"]:
        print(json.dumps(chatted(*json.load(sys.stdin))))
        return
    prompt, jobs = json.load(sys.stdin)
    print(json.dumps([answered(prompt, *job) for job in jobs]))


def chatted(model: str, chats: list[Any], new: int) -> list[tuple[str, int, str]]:
    found = []
    with opened(model, 512) as server:
        for chat in chats:
            said: list[dict[str, Any]] = []
            body = {"messages": chat, "max_tokens": new, "temperature": 0, "cache_prompt": False}
            server.handle_chat_completions(
                json.dumps(body).encode(), lambda raw, said=said: said.append(json.loads(raw))
            )
            choice = said[-1]["choices"][0]
            found.append((choice["message"]["content"], said[-1]["usage"]["prompt_tokens"], choice["finish_reason"]))
    return found


def answered(prompt: list[int], model: str, lora: str | None, scale: float) -> tuple[list[int], list[list[float]]]:
    with opened(model, 128, lora, scale) as server:
        return asked(server, prompt)


@contextmanager
def opened(model: str, context: int, lora: str | None = None, scale: float = 1.0) -> Iterator[Any]:
    """A server that nobody can connect to."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = model, context, 1
    params.warmup = params.fit_params = params.ui = False
    params.swa_full, params.verbosity = True, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = (
        1  # busy cores make its threads wait for each other
    )
    if lora:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(lora, scale)]
    with tempfile.TemporaryDirectory() as scratch:
        params.hostnames = [str(Path(scratch) / "unused.sock")]
        yield xllamacpp.Server(params)


def asked(server: Any, prompt: list[int]) -> tuple[list[int], list[list[float]]]:
    chunks: list[dict[str, Any]] = []
    body = {
        "prompt": prompt,
        "max_tokens": NEW,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "logprobs": 4096,
    }
    server.handle_completions(json.dumps(body).encode(), lambda raw: chunks.append(json.loads(raw)))
    entries = [e for c in chunks for e in (c["choices"][0].get("logprobs") or {}).get("content") or ()]
    rows = [[e["logprob"] for e in sorted(entry["top_logprobs"], key=lambda e: e["id"])] for entry in entries]
    return [entry["id"] for entry in entries], rows


if __name__ == "__main__":
    main()
