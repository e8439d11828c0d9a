"""A conversation: what was said, and how much of it fits the model's context. Pure: no model, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.chat.template import Message, fold_system, opening_ids, turn_ids
from rk_gemma_runtime.errors import PromptError

if TYPE_CHECKING:
    from rk_gemma_runtime.chat.tokenizer import Tokenizer


SLACK = 16  # a folded system message is a few tokens shorter than a turn of its own


class Conversation:
    """Turns in order. Where the context is full the oldest exchanges are not sent, never the system message and never
    the newest turn. What was once left out stays out, so that an engine's cache of the rest stays valid."""

    def __init__(self) -> None:
        self._history: list[Message] = []
        self.just_forgot = False
        """Whether the last prompt was the first that left something out."""
        self.generation = 0
        """Another one after each `reset`, and after the history was set."""
        self._left_out = 0
        self._encoded: dict[Message, list[int]] = {}

    @property
    def history(self) -> list[Message]:
        """What was said so far. May be changed in place."""
        return self._history

    @history.setter
    def history(self, turns: list[Message]) -> None:
        self._history, self._left_out = turns, 0
        self.generation += 1

    def reset(self, system: str = "") -> None:
        """Begin anew, with a system message if one is given."""
        self.history = [Message("system", system)] if system else []

    def prompt(self, text: str, tokenizer: Tokenizer, context: int, room: int) -> tuple[int, ...]:
        """Ids of the conversation with `text` as its newest turn, for an answer of `room` tokens in a context of
        `context`. Each turn is encoded once. A newest turn that is too long alone is given back as it is.

        Raises PromptError for an empty text, TemplateError.
        """
        if not text.strip():
            raise PromptError("the prompt is empty")
        turns = [*self.history, Message("user", text)]
        head = 1 if turns[0].role == "system" else 0
        before = self._left_out = min(self._left_out, len(turns) - head - 1)
        left_out, ids = self._fit(turns, head, tokenizer, context - room)
        self._left_out = left_out
        self.just_forgot = before == 0 < left_out
        return tuple(ids)

    def add(self, question: str, answer: Message) -> None:
        """Note an exchange."""
        self._history = [*self._history, Message("user", question), answer]

    def _fit(self, turns: list[Message], head: int, tokenizer: Tokenizer, most: int) -> tuple[int, list[int]]:
        """How many turns to leave out, two at a time, and the ids of the others."""
        known, self._encoded = self._encoded, {}
        system = sum(len(self._ids(turn, known, tokenizer)) for turn in turns[:head])
        sizes = [len(self._ids(turn, known, tokenizer)) for turn in turns[head:]]
        left_out, size = self._left_out, sum(sizes[self._left_out :])
        while True:
            ids = None
            if size + system <= most + SLACK:  # about; rendering tells
                ids = self._render([*turns[:head], *turns[head + left_out :]], tokenizer)
            last = left_out + 2 >= len(sizes)
            if last or (ids is not None and len(ids) <= most):
                return left_out, ids or self._render([*turns[:head], *turns[head + left_out :]], tokenizer)
            size -= sum(sizes[left_out : left_out + 2])
            left_out += 2

    def _render(self, turns: list[Message], tokenizer: Tokenizer) -> list[int]:
        ids = [tokenizer.bos]
        for turn in fold_system(turns):
            ids += self._ids(turn, self._encoded, tokenizer)
        return ids + opening_ids(tokenizer)

    def _ids(self, turn: Message, known: dict[Message, list[int]], tokenizer: Tokenizer) -> list[int]:
        ids = self._encoded.get(turn) or known.get(turn)
        if ids is None:
            ids = turn_ids(turn, tokenizer)
        self._encoded[turn] = ids
        return ids
