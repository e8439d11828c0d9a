"""What a caller may ask of a session, in Python's own types; `params.py` puts it into the library's structs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

# Cortex-A76 of an RK3588; 0 to 3 are the small cores (SDK manual 1.3.0, enabled_cpus_mask).
BIG_CORES = (4, 5, 6, 7)
RK3588_CORES = 8
NPU_CORES = 3
DOMAINS = 16
MOST_BATCH = 8


@dataclass(frozen=True)
class RkSampling:
    """Sampling as the library takes it. temperature 0 is greedy; penalties that do nothing: 1, 0, 0. All nine fields
    are always handed over: the struct has no value for "unset", and the library's own default penalty is 1.1."""

    top_k: int = 40
    top_p: float = 0.9
    temperature: float = 0.8
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1


GREEDY = RkSampling(1, 1.0, 0.0)


def default_cpus() -> tuple[int, ...] | None:
    """Choose CPUs for the library's threads on this machine, as `usable_cpus`."""
    return usable_cpus(frozenset(os.sched_getaffinity(0)), os.cpu_count() or 0)


def usable_cpus(allowed: frozenset[int], there: int) -> tuple[int, ...] | None:
    """The big cores of an RK3588 that this process may use, filled up with small ones; None, the library's own
    choice, on another machine. rkllm_init fails with a CPU in its mask that is off line or outside the cpuset, and
    with fewer of them than NPU cores."""
    if not NPU_CORES <= there <= RK3588_CORES:
        return None
    big = [cpu for cpu in BIG_CORES if cpu in allowed]
    small = sorted(allowed - {*big}, reverse=True)
    chosen = [*big, *small[: max(0, len(BIG_CORES) - len(big))]]
    return tuple(sorted(chosen)) if len(chosen) >= NPU_CORES and max(chosen) < RK3588_CORES else None


@dataclass(frozen=True)
class InitOptions:
    """What is fixed for the life of a session.

    `context` in tokens; `max_new_tokens` -1 none; `n_keep` tokens stay at the start when a full context is shifted
    (-1: the library's choice). `base_domain`: first IOMMU domain, 0 to 15; two models need two. `embed_flash`:
    embedding rows stay in the file, which saves vocabulary x hidden x 4 bytes of RAM. `cpus`: cores for the
    library's threads, at least as many as the model has NPU cores; None: the big ones of an RK3588. `batch`:
    sequences in one run, 1 to 8. `image_tags`: start, end, content, up to 1.2.3; later ones travel with the input.
    """

    context: int
    sampling: RkSampling = field(default_factory=RkSampling)
    max_new_tokens: int = -1
    n_keep: int = -1
    ignore_eos: bool = False
    skip_special: bool = True
    base_domain: int = 0
    embed_flash: bool = True
    cpus: tuple[int, ...] | None = None
    batch: int = 1
    cross_attention: bool = False
    image_tags: tuple[str, str, str] | None = None

    def check(self) -> None:
        """Raise UsageError for what no library takes, before it is asked."""
        if not 0 <= self.base_domain < DOMAINS:
            raise UsageError(f"unknown IOMMU domain {self.base_domain}; choose 0 to {DOMAINS - 1}")
        if not 1 <= self.batch <= MOST_BATCH:
            raise UsageError(f"a batch of {self.batch} is not between 1 and {MOST_BATCH}")
        if self.context < 1:
            raise UsageError(f"a context of {self.context} tokens")
        if self.n_keep >= self.context:
            raise UsageError(f"n_keep {self.n_keep} must be less than the context of {self.context}")
        if self.cpus is not None and (not self.cpus or not all(0 <= c < RK3588_CORES for c in self.cpus)):
            raise UsageError(f"CPUs {self.cpus} are not some of 0 to {RK3588_CORES - 1}")


@dataclass(frozen=True)
class RunOptions:
    """What may differ from run to run. `sampling` and `max_new_tokens` (0: as at init) from 1.3.0 only;
    `keep_history` (the library appends to the conversation it holds) from 1.2.0. `adapter`: name of a loaded one.
    `save_cache`: write the prompt's cache to this file."""

    sampling: RkSampling | None = None
    max_new_tokens: int = 0
    keep_history: bool = False
    adapter: str = ""
    save_cache: Path | None = None


@dataclass(frozen=True)
class Perf:
    """What the library counted in a run. `peak_memory_mb` is the VmHWM of this process, not of the model."""

    prefill_tokens: int
    prefill_ms: float
    generate_tokens: int
    generate_ms: float
    peak_memory_mb: float


@dataclass(frozen=True)
class Outcome:
    """How a run came back. `finished`: FINISH was heard (after an abort it may not be); `paused`: the callback
    asked for it; `perf` is None where the layout has no statistics or no FINISH came; `end_id` is the id that FINISH
    bore: the end token in some releases, -1 or a stale one in others."""

    finished: bool
    paused: bool
    perf: Perf | None
    end_id: int = -1
