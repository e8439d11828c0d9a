"""How to open a model: one value, from the command line or Python down to the worker."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal, TypedDict

from rk_gemma_runtime.board.facts import DOMAINS
from rk_gemma_runtime.checks import flag, number, path, shown, text, whole
from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.jobs import Sampling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rk_gemma_runtime.board import Board

Preference = Literal["auto", "npu", "cpu"]
PREFERENCES: tuple[Preference, ...] = ("auto", "npu", "cpu")
MOST_S = 1e12  # also bytes per second
MOST_THREADS = 1024
MOST_SCALE = 1e6


def preference(value: object) -> Preference:
    """One of PREFERENCES. Raises UsageError."""
    for name in PREFERENCES:
        if isinstance(value, str) and value == name:
            return name
    raise UsageError(f"unknown backend {shown(value)}; choose {', '.join(PREFERENCES)}")


@dataclass(frozen=True)
class Limits:
    """How long silence is borne and when the NPU is tried again, in seconds.

    Silence counts from the last sign of progress, and only while the parent waits for one.

    load_s, load_bytes_s: a load may be silent for `load_s` and for as long as reading the file at `load_bytes_s`
    bytes per second takes. A failing init of the vendor's library may take a minute. first_token_s, prompt_token_s: a
    prompt takes the first, and the second for each of its tokens (more where the plan is slower than a tenth of
    that). token_s: between two tokens. abort_s: from an abort to its end. pong_s: from a ping to its answer. retry_s,
    retry_most_s: a refused NPU is tried again after the first, then after twice as long each time, up to the second;
    0 never tries again. breakdowns, breakdown_s: so many breakdowns within the second are a refusal.
    """

    load_s: float = 180.0
    load_bytes_s: float = 10e6
    first_token_s: float = 120.0
    prompt_token_s: float = 0.1
    token_s: float = 30.0
    abort_s: float = 5.0
    pong_s: float = 2.0
    retry_s: float = 60.0
    retry_most_s: float = 3600.0
    breakdowns: int = 3
    breakdown_s: float = 600.0

    def changed(self, changes: Mapping[str, float]) -> Limits:
        """With other values. Raises UsageError for an unknown name or a value that cannot be."""
        names = [f.name for f in fields(self)]
        unknown = next((name for name in changes if name not in names), None)
        if unknown is not None:
            raise UsageError(f"unknown limit {unknown!r}; choose {', '.join(names)}")
        return replace(self, **changes).check()  # type: ignore[arg-type]

    def check(self) -> Limits:
        """The same in Python's own kinds. Raises UsageError."""
        found = {f.name: number(f"limit {f.name}", getattr(self, f.name), 0, MOST_S) for f in fields(self)}
        if not found["breakdowns"].is_integer():
            raise UsageError(f"limit breakdowns: {self.breakdowns!r} is not a whole number")
        return Limits(**{**found, "breakdowns": int(found["breakdowns"])})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Options:
    """How to open a model.

    backend: auto tries the NPU first and answers from the CPU where it refuses.
    librkllmrt: an explicit librkllmrt.so, or "" to search.
    context, threads: 0 is the bundle's, and as many as there are cores (the four big ones of an RK3588 at most).
    limits: how long silence is borne.
    sampling: of every answer that asks for no other; before librkllmrt 1.3.0 another one loads the NPU's model again.
    adapter, adapter_scale: a LoRA adapter of the bundle, or "".
    domain: first IOMMU domain, 0 to 15, for a board that runs another model in 0.
    force: load on the NPU even where the plan says no.
    shrink: a smaller context may be used where the asked one does not fit.
    board: plan for this one; None is the one this runs on.
    """

    backend: Preference = "auto"
    librkllmrt: str = ""
    context: int = 0
    threads: int = 0
    limits: Limits = field(default_factory=Limits)
    sampling: Sampling = field(default_factory=Sampling)
    adapter: str = ""
    adapter_scale: float = 1.0
    domain: int = 0
    force: bool = False
    shrink: bool = False
    board: Board | None = None

    def check(self) -> Options:
        """The same in Python's own kinds. Raises UsageError for a value that no bundle could make right."""
        for name, kind in (("limits", Limits), ("sampling", Sampling)):
            if not isinstance(getattr(self, name), kind):
                raise UsageError(f"{name} is not a {kind.__name__}: {shown(getattr(self, name))}")
        return Options(
            backend=preference(self.backend),
            librkllmrt=path("librkllmrt", self.librkllmrt),
            context=whole("context", self.context),
            threads=whole("threads", self.threads, 0, MOST_THREADS),
            limits=self.limits.check(),
            sampling=self.sampling.check(),
            adapter=text("adapter", self.adapter),
            adapter_scale=number("adapter_scale", self.adapter_scale, -MOST_SCALE, MOST_SCALE),
            domain=whole("domain", self.domain, 0, DOMAINS - 1),
            force=flag("force", self.force),
            shrink=flag("shrink", self.shrink),
            board=self._board(),
        )

    def _board(self) -> Board | None:
        if self.board is None:
            return None
        from rk_gemma_runtime.board import Board

        if not isinstance(self.board, Board):
            raise UsageError(f"board is not a Board: {shown(self.board)}")
        return self.board

    def changed(self, changes: Changes) -> Options:
        """With other values; a `sampling` of None is the default. Raises UsageError for an unknown name."""
        names = [f.name for f in fields(self)]
        unknown = next((name for name in changes if name not in names), None)
        if unknown is not None:
            raise UsageError(f"unknown option {unknown!r}; choose {', '.join(names)}")
        given = {k: v for k, v in changes.items() if not (k == "sampling" and v is None)}
        return replace(self, **given)  # type: ignore[arg-type]


class Changes(TypedDict, total=False):
    """The fields of Options as keyword arguments."""

    backend: Preference
    librkllmrt: str
    context: int
    threads: int
    limits: Limits
    sampling: Sampling | None
    adapter: str
    adapter_scale: float
    domain: int
    force: bool
    shrink: bool
    board: Board | None
