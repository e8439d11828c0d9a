"""Every error this product raises on purpose.

RkGemmaError                exit 1   something failed; the message is one line: what, where, what to do
+-- UsageError              exit 2   the caller asked for something that cannot be
+-- InputError              exit 3   what was given cannot be used
|   +-- CheckpointError                a directory that is not a usable Gemma checkpoint
|   +-- BundleError                    a directory that is not a usable bundle
|   |   +-- WeightsError                 NPU weights that are not what the manifest says; `cause` says why
|   +-- PromptError                    a prompt that cannot be answered (empty, too long, not UTF-8)
|   +-- TemplateError                  a conversation that Gemma's template refuses
+-- EngineError             exit 1   a backend failed
|   +-- NpuError            exit 4     the NPU cannot be used; `reason` says why, `lines` quotes the library
|   |   +-- LibraryError                 librkllmrt.so not found, not loadable, or of an unknown version
|   |   +-- UnsupportedCall              this librkllmrt has no such call; the message says which release has
|   +-- WorkerDied                     the process that held the engine ended
|   +-- WorkerHung                     it lived and made no progress, and was killed
|   +-- WireError                      the two processes disagree on the protocol
+-- NoBackendError          exit 5   neither NPU nor CPU can answer
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Protocol

from rk_gemma_runtime.printable import one_line


class Diagnosed(Protocol):
    """A diagnosis as far as errors know it: the rule book's `Diagnosis`."""

    @property
    def cause(self) -> str:
        """Id of the cause."""
        ...

    @property
    def remedy(self) -> str:
        """What to do about it."""
        ...

    @property
    def confidence(self) -> float:
        """0 to 1."""
        ...

    def tree(self) -> dict[str, Any]:
        """Plain data for JSON."""
        ...


class RkGemmaError(Exception):
    """Root of the tree; `exit_code` is what the command line returns for it. The message is one printable line,
    whatever a file's name or content has put into it. Errors can be pickled with all that they hold."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))

    def __reduce__(self) -> tuple[Any, ...]:
        """Subclasses take other arguments than their message, which Exception's own way does not know."""
        return _rebuilt, (type(self), self.args), self.__dict__


def _rebuilt(kind: type[RkGemmaError], args: tuple[Any, ...]) -> RkGemmaError:
    error = kind.__new__(kind)
    error.args = args
    return error


class UsageError(RkGemmaError):
    """The caller asked for something that cannot be."""

    exit_code = 2


class InputError(RkGemmaError):
    """What was given cannot be used."""

    exit_code = 3


class CheckpointError(InputError):
    """Not a Gemma checkpoint that can be exported."""


class BundleError(InputError):
    """Not a bundle that can be used."""


class WeightsError(BundleError):
    """NPU weights of a bundle that are not an `.rkllm`, not whole, or not what its manifest says. `cause` is one of
    the rule book; `remedy` says what to do."""

    def __init__(self, message: str, cause: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.remedy = remedy


class PromptError(InputError):
    """A prompt that cannot be answered: empty, not UTF-8, or longer than the context."""


class TemplateError(InputError):
    """A conversation that Gemma's chat template refuses; the message is the template's own."""


NO_CAUSE = frozenset({"ok", "other"})
LIKELY = 0.5


class EngineError(RkGemmaError):
    """A backend failed. `diagnosis`: what the rule book reads in the library's lines, where there were any."""

    diagnosis: Diagnosed | None = None

    @property
    def named(self) -> Diagnosed | None:
        """The diagnosis if it names a cause with confidence >= 0.5, else None."""
        found = self.diagnosis
        return None if found is None or found.cause in NO_CAUSE or found.confidence < LIKELY else found

    @property
    def cause(self) -> str:
        """The cause that the rule book reads in the library's lines, else the one that the error itself has, or
        ""."""
        return self.named.cause if self.named else ""


class NpuReason(str, Enum):
    """Why the NPU cannot be used, as far as the runtime itself can tell."""

    NO_LIBRARY = "no_library"
    """No librkllmrt.so was found; the message lists every path tried."""
    BAD_LIBRARY = "bad_library"
    """A librkllmrt.so that cannot be loaded, or of a version whose layout is not known."""
    MISSING_SHARED_LIBRARY = "missing_shared_library"
    """librkllmrt.so needs another library, which is not on this system."""
    GLIBC_TOO_OLD = "glibc_too_old"
    """librkllmrt.so was built for a newer C or C++ library than this system has."""
    NO_WEIGHTS = "no_weights"
    """The bundle holds no NPU weights."""
    IOVA_EXHAUSTED = "npu_malloc_iova_exhausted"
    """No I/O address range for a buffer (errno 14)."""
    NO_RAM = "npu_malloc_no_ram"
    """No memory pages for a buffer (errno 12)."""
    FD_LIMIT = "fd_limit"
    """Too few file descriptors: each NPU buffer is one (errno 24)."""
    MODEL_REFUSED = "model_refused"
    """The library does not accept the model file."""
    MODEL_VERSION = "model_version_mismatch"
    """The weights were made by a newer toolkit than the library."""
    DRIVER_TOO_OLD = "driver_too_old"
    """The kernel's rknpu driver cannot do what this model needs."""
    DRIVER_MISSING = "driver_missing"
    """The kernel has no rknpu driver, or no node of it."""
    PERMISSION = "permission"
    """The NPU's node may not be opened."""
    IOMMU_DISABLED = "iommu_disabled"
    """The NPU's IOMMU is off: only contiguous memory can be used."""
    PLATFORM_MISMATCH = "platform_mismatch"
    """The weights are for another SoC."""
    UNKNOWN_PLATFORM = "unknown_platform"
    """The device tree is hidden, or names no chip that the library knows."""
    CONTEXT_TOO_LONG = "context_too_long"
    """The context is over the limit that the weights were made for."""
    OOM_KILLED = "oom_killed"
    """The kernel ends processes when memory runs out; this load would run into it."""
    INIT_FAILED = "init_failed"
    """rkllm_init failed and its lines name no cause that is known here."""
    RUN_FAILED = "npu_run_failed"
    """The NPU failed in the middle of a run."""
    NOT_IN_VERSION = "not_in_version"
    """The loaded librkllmrt has no such call or mode."""

    @classmethod
    def of(cls, cause: str, default: NpuReason) -> NpuReason:
        """The reason that bears the name of a cause of the rule book, if there is one."""
        return next((reason for reason in cls if reason.value == cause), default)


REMEDIES = {
    NpuReason.NO_LIBRARY: "install Rockchip's librkllmrt.so in /usr/lib,"
    " or name it with RK_GEMMA_LIBRKLLMRT or --librkllmrt",
    NpuReason.BAD_LIBRARY: "use Rockchip's librkllmrt.so for Linux, from 1.1.0 on",
    NpuReason.MISSING_SHARED_LIBRARY: "then check with `rk-gemma lib`",
    NpuReason.GLIBC_TOO_OLD: "use a newer release of the distribution, or an older librkllmrt.so",
    NpuReason.NO_WEIGHTS: "export it with --npu rkllm through Rockchip's rkllm-toolkit (docs/toolkit.md), or put an"
    " .rkllm into the bundle (docs/bundle.md)",
    NpuReason.IOVA_EXHAUSTED: "the NPU's address space is full or the driver cannot map a buffer this large: stop"
    " other NPU programs, or use a kernel with rknpu driver 0.9.8",
    NpuReason.NO_RAM: "free memory, or use a smaller model or context",
    NpuReason.FD_LIMIT: "raise the hard limit of open files: `ulimit -Hn 102400` as root, or LimitNOFILE=102400 in a"
    " systemd unit",
    NpuReason.DRIVER_TOO_OLD: "use a vendor kernel with rknpu driver 0.9.8",
    NpuReason.DRIVER_MISSING: "use the vendor's kernel with the rknpu driver; `rk-gemma doctor` looks for it",
    NpuReason.PERMISSION: "`sudo usermod -aG render $USER` and a new login; `rk-gemma doctor` names the node's group",
    NpuReason.IOMMU_DISABLED: "enable the NPU's IOMMU in the device tree",
    NpuReason.PLATFORM_MISMATCH: "use weights that Rockchip's rkllm-toolkit made for this SoC, or --backend cpu",
    NpuReason.UNKNOWN_PLATFORM: "in a container: `docker run --security-opt systempaths=unconfined --security-opt"
    " apparmor=unconfined`; `rk-gemma doctor` shows what the device tree says",
    NpuReason.CONTEXT_TOO_LONG: "ask for a smaller --context, or export with a larger one",
    NpuReason.OOM_KILLED: "free memory, or use a smaller model or context",
    NpuReason.MODEL_REFUSED: "convert the model again with Rockchip's rkllm-toolkit, for this platform and library",
    NpuReason.MODEL_VERSION: "install a librkllmrt.so of the toolkit's release or a later one (`rk-gemma lib` shows"
    " which is here); --force tries all the same",
    NpuReason.INIT_FAILED: "run with --debug to see every line of the library",
    NpuReason.NOT_IN_VERSION: "use a newer librkllmrt.so",
    NpuReason.RUN_FAILED: "check the rknpu driver version (0.9.8 is asked for) and restart",
}


class NpuError(EngineError):
    """The NPU cannot be used. `lines` are the library's own last lines, oldest first; `remedy` a better one than the
    reason's."""

    exit_code = 4

    def __init__(self, message: str, reason: NpuReason, lines: tuple[str, ...] = (), remedy: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.lines = lines
        self._remedy = remedy

    @property
    def cause(self) -> str:
        """As EngineError.cause; else the reason."""
        return super().cause or self.reason.value

    @property
    def remedy(self) -> str:
        """What to do about it, in a few words."""
        named = self.named
        return self._remedy or (named.remedy if named else "") or REMEDIES[self.reason]

    def advise(self, remedy: str) -> None:
        """Replace the remedy: what it would say was tried."""
        self._remedy = remedy


class LibraryError(NpuError):
    """librkllmrt.so not found, not loadable, or of an unknown version."""


class UnsupportedCall(NpuError):
    """The loaded librkllmrt has no such call or mode; the message names its version and the one that brought it."""

    def __init__(
        self, message: str, reason: NpuReason = NpuReason.NOT_IN_VERSION, lines: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, reason, lines)


class WorkerDied(EngineError):
    """The worker process ended by itself. `lines` are what it printed last; `status` is its exit status, or minus the
    number of the signal that ended it, or None if that is not known."""

    def __init__(self, message: str, lines: tuple[str, ...] = (), status: int | None = None) -> None:
        super().__init__(message)
        self.lines = lines
        self.status = status


class WorkerHung(EngineError):
    """The worker process lived and made no progress; it has been killed. `lines` are what it printed last."""

    def __init__(self, message: str, lines: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.lines = lines


class WireError(EngineError):
    """A frame that the protocol does not allow."""


class NoBackendError(RkGemmaError):
    """Neither the NPU nor the CPU can answer."""

    exit_code = 5
