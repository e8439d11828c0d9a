"""`rk-gemma run BUNDLE PROMPT`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from rk_gemma_runtime.cli import options as o
from rk_gemma_runtime.cli.answertext import AnswerText
from rk_gemma_runtime.errors import EngineError, PromptError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.assistant import Assistant


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("run")(run_command)


def run_command(
    bundle: o.BundlePath,
    prompt: Annotated[str, typer.Argument(metavar="[PROMPT]", help="The question; - or nothing: stdin.")] = "-",
    ids: Annotated[str, typer.Option("--ids", metavar="2,5,...", help="Token ids to continue, no template.")] = "",
    backend: o.BackendName = "auto",
    max_tokens: o.MaxTokens = o.USUAL_TOKENS,
    temperature: o.Temperature = o.USUAL.temperature,
    top_k: o.TopK = o.USUAL.top_k,
    top_p: o.TopP = o.USUAL.top_p,
    repeat_penalty: o.RepeatPenalty = o.USUAL.repeat_penalty,
    system: o.System = "",
    context: o.Context = 0,
    threads: o.Threads = 0,
    librkllmrt: o.Librkllmrt = "",
    adapter: o.Adapter = "",
    npu_domain: o.NpuDomain = 0,
    force: o.Force = False,
    shrink: o.Shrink = False,
    limit: o.Limit = None,
    as_json: o.Json = False,
) -> None:
    """Answer one question."""
    if ids and prompt != "-":
        raise UsageError("give either a prompt or --ids")
    numbers = _parse_ids(ids) if ids else None
    from rk_gemma_runtime.bundle import Bundle

    opened = Bundle.open(bundle)  # before a prompt is typed
    text = "" if numbers is not None else _read_prompt(prompt)
    options = o.options(
        backend=backend, temperature=temperature, top_k=top_k, top_p=top_p, repeat_penalty=repeat_penalty,
        context=context, threads=threads, librkllmrt=librkllmrt, adapter=adapter, npu_domain=npu_domain, force=force,
        shrink=shrink, limit=limit,
    )  # fmt: skip
    answer = AnswerText()
    # Not loaded yet: what is wrong with the prompt is said first.
    with o.open_assistant(opened, options, answer, load=False) as assistant:
        assistant.reset(system)
        pieces = _pieces(assistant, text, numbers, max_tokens)
        _print(pieces, assistant, answer, as_json)


def _pieces(assistant: Assistant, text: str, ids: list[int] | None, max_tokens: int) -> Iterator[str]:
    if ids is not None:
        return assistant.generate(ids, max_tokens=max_tokens)
    return assistant.chat(text, max_tokens=max_tokens)


def _print(pieces: Iterator[str], assistant: Assistant, text: AnswerText, as_json: bool) -> None:
    try:
        for piece in pieces:
            if not as_json:
                text.part(piece)
    except BaseException:  # Ctrl-C, or the line of an error
        text.step_aside()
        raise
    answer = assistant.last
    if answer is None:
        raise EngineError("the backend ended without an answer")
    if as_json:
        remedies = [asdict(applied) for applied in assistant.remedies]
        print(json.dumps({**answer.as_dict(), "remedies": remedies}, ensure_ascii=False))
    elif assistant.bundle.tokenizer_file is None:
        print(",".join(map(str, answer.ids)))
    else:
        text.end()
        o.tell_if_cut(assistant)


def _read_prompt(prompt: str) -> str:
    if prompt != "-":
        text = prompt
    else:
        raw = sys.stdin.buffer.read()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PromptError(f"stdin: not UTF-8 at byte {error.start}; convert it first") from error
    if not text.strip():
        raise PromptError("the prompt is empty")
    return text


def _parse_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--ids takes numbers separated by commas, not {text[:40]!r}") from None
