"""The slash commands of the terminal chat."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma_runtime.chat import Message
from rk_gemma_runtime.chat.reading import read_conversation
from rk_gemma_runtime.cli.talk import say
from rk_gemma_runtime.errors import PromptError, UsageError
from rk_gemma_runtime.options import preference

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma_runtime.assistant import Assistant

HELP = """\
/reset            forget the conversation (the system message stays)
/system [TEXT]    show or set the system message; /system - removes it
/backend [NAME]   show or change the backend: auto, npu, cpu
/stats            numbers of the last answer
/save FILE        write the conversation as JSON; /save! FILE writes over another
/load FILE        go on with a saved conversation
/help             this list
/quit             leave (or Ctrl-D)
A line that ends in \\ goes on in the next; pasted lines stay together. Ctrl-C stops an answer."""


class Commands:
    """Obeys a line that starts with a slash."""

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant
        self._own: set[Path] = set()  # files that this conversation was written to or came from
        self._verbs: dict[str, Callable[[str], None]] = {
            "/reset": self._reset,
            "/system": self._system,
            "/backend": self._backend,
            "/stats": self._stats,
            "/save": self._save,
            "/save!": lambda rest: self._save(rest, over=True),
            "/load": self._load,
            "/help": lambda rest: print(HELP, file=sys.stderr, flush=True),
        }

    def obey(self, line: str) -> bool:
        """False if the conversation shall end. Raises UsageError for an unknown command."""
        verb, _, rest = line.strip().partition(" ")
        verb = verb.lower()
        if verb in {"/quit", "/exit"}:
            return False
        if verb not in self._verbs:
            raise UsageError(f"no command {verb}; /help lists them")
        self._verbs[verb](rest.strip())
        return True

    def _system_text(self) -> str:
        history = self._assistant.history
        return history[0].content if history and history[0].role == "system" else ""

    def _reset(self, rest: str) -> None:
        self._assistant.reset(self._system_text())
        say("a new conversation")

    def _system(self, rest: str) -> None:
        if not rest:
            say(f"system message: {self._system_text() or 'none'}")
            return
        turns = [m for m in self._assistant.history if m.role != "system"]
        text = "" if rest == "-" else rest
        self._assistant.history = [*([Message("system", text)] if text else []), *turns]
        say("system message set" if text else "system message removed")

    def _backend(self, rest: str) -> None:
        if rest:
            self._assistant.prefer(preference(rest))
        say(f"answers come from the {self._assistant.backend.upper()}")

    def _stats(self, rest: str) -> None:
        a = self._assistant.last
        if a is None:
            say("no answer yet")
            return
        made = f" ({', then '.join(f'{kind} {count}' for kind, count in a.made_by)})" if len(a.made_by) > 1 else ""
        say(
            f"{a.backend}: {a.prompt_tokens} prompt tokens ({a.cached_tokens} from the cache),"
            f" {a.new_tokens} new{made}, first after {a.ttft_s * 1000:.0f} ms,"
            f" {a.tokens_per_second:.1f} tokens/s, {a.finish_reason}"
        )

    def _save(self, rest: str, over: bool = False) -> None:
        path = _path(rest, "/save")
        turns = [{"role": m.role, "content": m.content} for m in self._assistant.history]
        try:
            place = path.resolve()
            there = has_text(place)
            if there and not over and place not in self._own:
                raise UsageError(f"{path}: exists; /save! {path} writes over it")
            replace_text(place, json.dumps(turns, ensure_ascii=False, indent=1))
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
        self._own.add(place)
        say(f"{len(turns)} messages saved to {path}{', in place of what it held' if there else ''}")

    def _load(self, rest: str) -> None:
        path = _path(rest, "/load")
        turns = read_saved(path)
        self._assistant.reset()
        self._assistant.history = turns
        self._own.add(path.resolve())
        say(f"{len(turns)} messages loaded from {path}")


def has_text(path: Path) -> bool:
    """Whether there is a file with something in it; a conversation without messages is nothing. Raises OSError."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16).strip() not in {b"", b"[]"}


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner only; an existing one keeps its mode.

    Raises OSError, also for what is there and not a regular file: a device must not become one.
    """
    mode = 0o600
    if path.exists():
        if not path.is_file():
            raise OSError(errno.EINVAL, "not a regular file")
        mode = path.stat().st_mode & 0o777
    fd, fresh = tempfile.mkstemp(prefix=f".{path.name[:50]}.", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(fresh, mode)
        os.replace(fresh, path)
    except OSError:
        os.unlink(fresh)
        raise


def read_saved(path: Path) -> list[Message]:
    """The messages of a saved conversation. Raises PromptError."""
    try:
        return read_conversation(path.read_bytes(), str(path))[0]
    except OSError as error:
        raise PromptError(f"{path}: cannot be read: {error.strerror}") from error


def _path(rest: str, verb: str) -> Path:
    if not rest:
        raise UsageError(f"{verb} needs a file name")
    return Path(rest).expanduser()
