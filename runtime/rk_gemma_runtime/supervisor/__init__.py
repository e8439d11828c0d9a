"""The parent's side of a worker: start it, talk to it, tell hung from dead, end it."""

from rk_gemma_runtime.supervisor.backend import Backend
from rk_gemma_runtime.supervisor.source import Source
from rk_gemma_runtime.supervisor.spare import Spare

__all__ = ["Backend", "Source", "Spare"]
