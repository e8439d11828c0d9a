"""The model that is exported: a checkpoint, how its text is read, and where its answers end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rk_gemma.checkpoint import Checkpoint
from rk_gemma_runtime.chat.tokenizer import Tokenizer
from rk_gemma_runtime.errors import CheckpointError, UsageError
from rk_gemma_runtime.memory.shape import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.checkpoint import ModelSpec


@dataclass(frozen=True)
class Model:
    """What every writer is given. `tokenizer` None: ids only; `eos` are the ids that end an answer."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer | None
    eos: tuple[int, ...]

    @property
    def spec(self) -> ModelSpec:
        """The checkpoint's, with the context of the bundle."""
        return self.checkpoint.spec


def open_model(source: Path, context: int, warn: Callable[[str], None]) -> Model:
    """Open a checkpoint for a bundle of `context` tokens (0: the model's, at most DEFAULT_CONTEXT). Raises
    CheckpointError, UsageError."""
    checkpoint = _with_context(Checkpoint.open(source), context)
    for line in checkpoint.notes:
        warn(line)
    tokenizer = _tokenizer(checkpoint, warn)
    turn = (tokenizer.end_of_turn,) if tokenizer else ()
    return Model(checkpoint, tokenizer, tuple(dict.fromkeys((*checkpoint.spec.eos, *turn))))


def _with_context(checkpoint: Checkpoint, context: int) -> Checkpoint:
    """Set the context: room for prompt and answer is memory on the board, so a bundle states how much it was made
    for."""
    most = checkpoint.spec.shape.context
    if context > most:
        raise UsageError(f"--context {context} is over the model's {most}")
    shape = replace(checkpoint.spec.shape, context=context or min(most, DEFAULT_CONTEXT))
    spec = replace(checkpoint.spec, shape=shape)
    return Checkpoint(checkpoint.directory, spec, checkpoint.tensors, checkpoint.notes)


def _tokenizer(checkpoint: Checkpoint, warn: Callable[[str], None]) -> Tokenizer | None:
    if checkpoint.tokenizer is None:
        warn(f"{checkpoint.directory}: no tokenizer.model; the bundle takes and gives token ids only")
        return None
    tokenizer = Tokenizer.open(checkpoint.tokenizer)
    if tokenizer.size > checkpoint.spec.shape.vocab:
        raise CheckpointError(
            f"{checkpoint.tokenizer}: {tokenizer.size} pieces, the model has {checkpoint.spec.shape.vocab} rows"
        )
    return tokenizer
