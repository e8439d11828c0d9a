"""`rk-gemma tokens BUNDLE|--tokenizer FILE --text TEXT|--chat FILE`: what the model will really read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rk_gemma_runtime.cli import options as o
from rk_gemma_runtime.errors import PromptError, UsageError

if TYPE_CHECKING:
    from rk_gemma_runtime.chat import Message, Tokenizer
    from rk_gemma_runtime.chat.template import End


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("tokens")(tokens_command)


def tokens_command(
    bundle: Annotated[Path | None, typer.Argument(metavar="[BUNDLE]", help="A bundle with a tokenizer.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(metavar="FILE", help="A tokenizer.model instead.")] = None,
    text: Annotated[str | None, typer.Option(help="Text to encode, without <bos>.")] = None,
    chat: Annotated[str | None, typer.Option(metavar="FILE", help="JSON list of messages; - for stdin.")] = None,
    strict: Annotated[bool, typer.Option(help="Refuse what the official template refuses.")] = False,
    as_json: o.Json = False,
) -> None:
    """Show the token ids of a text or of a conversation."""
    if (bundle is None) == (tokenizer is None):
        raise UsageError("give either a bundle or --tokenizer FILE")
    if (text is None) == (chat is None):
        raise UsageError("give either --text or --chat")
    model = _open(bundle, tokenizer)
    if text is not None:
        _show(model, model.encode(text), None, as_json)
        return
    from rk_gemma_runtime.chat import render

    messages, end = _read_chat(chat or "-")
    prompt = render(messages, model, end=end, strict=strict)
    _show(model, prompt.ids, prompt.text, as_json)


def _open(bundle: Path | None, tokenizer: Path | None) -> Tokenizer:
    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.chat import Tokenizer

    path = tokenizer
    if bundle is not None:
        path = Bundle.open(bundle).tokenizer_file
    if path is None:
        raise UsageError(f"{bundle}: an ids-only bundle has no tokenizer")
    return Tokenizer.open(path)


def _read_chat(name: str) -> tuple[list[Message], End]:
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise PromptError(f"{name}: cannot be read: {error.strerror}") from error
    from rk_gemma_runtime.chat.reading import read_conversation

    messages, options = read_conversation(raw, name)
    if options.get("continue_final_message"):
        return messages, "continue"
    return messages, "answer" if options.get("add_generation_prompt", True) else "close"


def _show(model: Tokenizer, ids: list[int], prompt: str | None, as_json: bool) -> None:
    pieces = [model.piece(i) for i in ids]
    if as_json:
        tree = {"ids": ids, "pieces": pieces, "count": len(ids), "prompt": prompt}
        print(json.dumps(tree, ensure_ascii=False))
        return
    if prompt is not None:
        print(prompt)
        print()
    for token, piece in zip(ids, pieces, strict=True):
        print(f"{token:>8}  {piece!r}{'  control' if model.is_control(token) else ''}")
    print(f"{len(ids)} tokens")
