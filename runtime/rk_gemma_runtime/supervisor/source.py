"""What a worker shall load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.jobs import Setup


@dataclass(frozen=True)
class Source:
    """`kind` of engine; its `setup`; `board` for the diagnosis of a failure; `prompt_token_s`: seconds per token of a
    prompt by the plan, 0 without one."""

    kind: Literal["npu", "cpu"]
    setup: Setup
    board: Board | None = None
    prompt_token_s: float = 0.0

    @property
    def file_bytes(self) -> int:
        """Size of the model file; 0 for one that is not there: the engine will say so."""
        try:
            return Path(self.setup.model).stat().st_size
        except (OSError, ValueError):
            return 0
