"""The model that is exported: a checkpoint, how its text is read, and where its answers end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rk_gemma.checkpoint import Checkpoint
from rk_gemma.export.text import Text, read_text
from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.memory.shape import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.checkpoint import ModelSpec
    from rk_gemma_runtime.chat.tokenizer import Tokenizer


@dataclass(frozen=True)
class Model:
    """What every writer is given. `eos` are the ids that end an answer."""

    checkpoint: Checkpoint
    text: Text
    eos: tuple[int, ...]

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What reads text; None: ids only."""
        return self.text.tokenizer

    @property
    def spec(self) -> ModelSpec:
        """The checkpoint's, with the context of the bundle."""
        return self.checkpoint.spec


def open_model(source: Path, context: int, template: str, warn: Callable[[str], None]) -> Model:
    """Open a checkpoint for a bundle of `context` tokens (0: the model's, at most DEFAULT_CONTEXT) and a chat
    template (one of WISHES). Raises CheckpointError, BundleError, UsageError."""
    checkpoint = _with_context(Checkpoint.open(source), context)
    for line in checkpoint.notes:
        warn(line)
    text = read_text(checkpoint, template, warn)
    turn = (text.tokenizer.end_of_turn,) if text.tokenizer else ()
    return Model(checkpoint, text, tuple(dict.fromkeys((*checkpoint.spec.eos, *turn))))


def _with_context(checkpoint: Checkpoint, context: int) -> Checkpoint:
    """Set the context: room for prompt and answer is memory on the board, so a bundle states how much it was made
    for."""
    most = checkpoint.spec.shape.context
    if context > most:
        raise UsageError(f"--context {context} is over the model's {most}")
    shape = replace(checkpoint.spec.shape, context=context or min(most, DEFAULT_CONTEXT))
    spec = replace(checkpoint.spec, shape=shape)
    return checkpoint.with_spec(spec)
