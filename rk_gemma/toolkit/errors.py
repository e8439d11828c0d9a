"""What goes wrong around the toolkit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import EngineError, InputError

if TYPE_CHECKING:
    from rk_gemma_runtime.errors import Diagnosed

# The checkpoint or the options were at fault, not the machine.
INPUT_CAUSES = ("toolkit_unsupported_model", "toolkit_unsupported_dtype", "toolkit_bad_checkpoint")


class WheelError(InputError):
    """A file that is not a usable wheel of rkllm-toolkit."""


class HostError(InputError):
    """A machine or an interpreter that the toolkit does not run on."""


class EnvironmentFault(InputError):
    """An environment of the toolkit that cannot be made, found or used."""


class ToolkitError(EngineError):
    """The toolkit failed. `lines` are its own last lines; the exit code is 3 if its input was at fault, else 1."""

    def __init__(self, message: str, lines: tuple[str, ...] = (), diagnosis: Diagnosed | None = None) -> None:
        super().__init__(message)
        self.lines = lines
        self.diagnosis = diagnosis
        self.exit_code = 3 if self.cause in INPUT_CAUSES else 1
