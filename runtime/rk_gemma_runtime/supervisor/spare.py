"""A worker that is started before it is known what it will load: its start takes longer than a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.supervisor.process import Process

if TYPE_CHECKING:
    from typing_extensions import Self


class Spare:
    """A process for an engine that needs no scratch directory, ended with this block unless it was taken."""

    def __init__(self) -> None:
        self._process: Process | None = None

    def __enter__(self) -> Self:
        """Raises EngineError if no process can be started."""
        self._process = Process(needs_scratch=False)
        return self

    def __exit__(self, *error: object) -> None:
        process = self.take()
        if process is not None:
            process.kill()
            process.close()

    def take(self) -> Process | None:
        """The process, for its first owner."""
        process, self._process = self._process, None
        return process
