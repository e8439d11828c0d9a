"""`rk-gemma chat BUNDLE`: a conversation in the terminal, or line by line through a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from rk_gemma_runtime.cli import options as o
from rk_gemma_runtime.cli.answertext import AnswerText
from rk_gemma_runtime.cli.talk import complain, say
from rk_gemma_runtime.errors import NoBackendError, RkGemmaError

if TYPE_CHECKING:
    from rk_gemma_runtime.assistant import Assistant


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("chat")(chat_command)


def chat_command(
    bundle: o.BundlePath,
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
) -> None:
    """Talk with the model. /help lists the commands."""
    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.cli.commands import Commands
    from rk_gemma_runtime.cli.lines import Lines

    options = o.options(
        backend=backend, temperature=temperature, top_k=top_k, top_p=top_p, repeat_penalty=repeat_penalty,
        context=context, threads=threads, librkllmrt=librkllmrt, adapter=adapter, npu_domain=npu_domain, force=force,
        shrink=shrink, limit=limit,
    )  # fmt: skip
    text = AnswerText()
    with o.open_assistant(Bundle.open(bundle), options, text) as assistant, Lines() as lines:
        assistant.reset(system)
        if lines.interactive:
            say(f"{assistant.bundle.name} on the {assistant.backend.upper()}; /help for commands, Ctrl-D to leave")
        code = _converse(assistant, lines, Commands(assistant), text, max_tokens)
    if code:
        raise typer.Exit(code)


def _converse(assistant: Assistant, lines: Lines, commands: Commands, text: AnswerText, max_tokens: int) -> int:
    """Until the end of the input. The exit code of the first error where a program is listening, else 0."""
    code = 0
    for line in lines:
        try:
            if line.lstrip().startswith("/"):
                if not commands.obey(line):
                    break
            else:
                _answer(assistant, line, text, max_tokens)
        except KeyboardInterrupt:
            text.end()
            say("stopped")
        except NoBackendError:
            raise
        except RkGemmaError as error:
            text.step_aside()
            complain(error)
            code = code or error.exit_code
    return 0 if lines.interactive else code


def _answer(assistant: Assistant, line: str, text: AnswerText, max_tokens: int) -> None:
    pieces = assistant.chat(line, max_tokens=max_tokens)
    try:
        for piece in pieces:
            text.part(piece)
    finally:
        pieces.close()
    text.end()
    o.tell_if_cut(assistant)


if TYPE_CHECKING:
    from rk_gemma_runtime.cli.commands import Commands
    from rk_gemma_runtime.cli.lines import Lines
