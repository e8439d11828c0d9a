"""A conversation written as JSON: a list of {"role", "content"} messages, or an object that holds one as
"messages"."""

from __future__ import annotations

import json
from typing import Any

from rk_gemma_runtime.chat.template import ROLES, Message
from rk_gemma_runtime.errors import PromptError


def read_conversation(text: str | bytes, where: str) -> tuple[list[Message], dict[str, Any]]:
    """The messages and, where they are in an object, its other members. `where` names the source in errors.

    Raises PromptError, TemplateError for a message that is not one.
    """
    try:
        tree = json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{where}: not a conversation in JSON ({error})") from error
    rest = {k: v for k, v in tree.items() if k != "messages"} if isinstance(tree, dict) else {}
    messages = tree.get("messages") if isinstance(tree, dict) else tree
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise PromptError(f'{where}: not a list of {{"role", "content"}} messages')
    turns = [Message.parse(m) for m in messages]
    odd = next((turn.role for turn in turns if turn.role not in ROLES), None)
    if odd is not None:
        raise PromptError(f"{where}: unknown role {odd!r}; choose {', '.join(sorted(ROLES))}")
    return turns, rest
