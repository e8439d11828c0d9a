"""Gemma's chat template, rendered to ids without ever re-reading text as markup.

Form: <bos>, then per turn <start_of_turn>ROLE, newline, the trimmed text, <end_of_turn>, newline; role `model` for
the assistant; `<start_of_turn>model` and a newline to answer. Source: the chat_template of google/gemma-7b-it
and gemma-2-2b-it (identical). `trim` is str.strip(), as in Jinja.

Gemma has no system role. A system message is put in front of the first user turn, separated by a blank line;
`strict` refuses it, and every other thing the official template refuses, in its words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rk_gemma_runtime.chat.tokenizer import END_OF_TURN, START_OF_TURN
from rk_gemma_runtime.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rk_gemma_runtime.chat.tokenizer import Tokenizer

End = Literal["answer", "close", "continue"]
ROLES = {"system", "user", "assistant", "model", "tool"}


@dataclass(frozen=True)
class Message:
    """One message. `ids` are the ids that a model's answer was generated as: they are reused while they
    still stand for `content`, so that an engine's cache of them stays valid."""

    role: str
    content: str
    ids: tuple[int, ...] = ()

    @classmethod
    def parse(cls, value: Message | Mapping[str, object]) -> Message:
        """From the {"role", "content"} form. Raises TemplateError."""
        if isinstance(value, Message):
            return value
        role, content = value.get("role"), value.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise TemplateError("a message needs a role and a content, both text")
        return cls(role, content)


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation: for reading, and as ids. With hostile text only the ids are unambiguous."""

    text: str
    ids: list[int]


def render(
    messages: Sequence[Message | Mapping[str, object]],
    tokenizer: Tokenizer,
    *,
    end: End = "answer",
    strict: bool = False,
) -> Prompt:
    """Render a conversation. Raises TemplateError.

    `end`: "answer" opens the model's turn, "close" leaves the last turn closed, "continue" leaves it open, so
    that the model goes on with it.
    """
    turns = [Message.parse(m) for m in messages]
    if not turns:
        raise TemplateError("the conversation is empty")
    turns = _check_official(turns) if strict else fold_system(turns)
    text, ids = "<bos>", [tokenizer.bos]
    for turn in turns:
        text += _turn_text(turn)
        ids += turn_ids(turn, tokenizer)
    if end == "answer":
        text += f"{START_OF_TURN}model\n"
        ids += opening_ids(tokenizer)
    elif end == "continue":
        tail = [tokenizer.end_of_turn, *tokenizer.encode("\n")]
        text, ids = text[: -len(f"{END_OF_TURN}\n")], ids[: -len(tail)]
    return Prompt(text, ids)


def _name(role: str) -> str:
    return "model" if role == "assistant" else role


def _turn_text(turn: Message) -> str:
    return f"{START_OF_TURN}{_name(turn.role)}\n{turn.content.strip()}{END_OF_TURN}\n"


def opening_ids(tokenizer: Tokenizer) -> list[int]:
    """What opens the model's turn."""
    return [tokenizer.start_of_turn, *tokenizer.encode("model\n")]


def turn_ids(turn: Message, tokenizer: Tokenizer) -> list[int]:
    """One whole turn; nothing of it depends on the turns around it."""
    text = turn.content.strip()
    head = [tokenizer.start_of_turn, *tokenizer.encode(f"{_name(turn.role)}\n")]
    kept = turn.ids and tokenizer.decode(list(turn.ids)) == text
    body = list(turn.ids) if kept else tokenizer.encode(text)
    return [*head, *body, tokenizer.end_of_turn, *tokenizer.encode("\n")]


def _check_official(turns: list[Message]) -> list[Message]:
    if turns[0].role == "system":
        raise TemplateError("System role not supported")
    for index, turn in enumerate(turns):
        if (turn.role == "user") != (index % 2 == 0):
            raise TemplateError("Conversation roles must alternate user/assistant/user/assistant/...")
    return turns


def fold_system(turns: list[Message]) -> list[Message]:
    """The turns that are rendered: system messages go in front of the first user turn. Raises TemplateError."""
    unknown = [t.role for t in turns if t.role not in ROLES]
    if unknown:
        raise TemplateError(f"unknown role {unknown[0]!r}; choose {', '.join(sorted(ROLES))}")
    system = "\n\n".join(t.content.strip() for t in turns if t.role == "system")
    rest = [t for t in turns if t.role != "system"]
    if not system:
        return rest if rest else _nothing()
    if not rest or rest[0].role != "user":
        raise TemplateError("a system message needs a user message after it")
    return [Message("user", f"{system}\n\n{rest[0].content.strip()}"), *rest[1:]]


def _nothing() -> list[Message]:
    raise TemplateError("the conversation is empty")
