"""What the library counts, as far as it can be believed."""

from __future__ import annotations

from rk_gemma_runtime.librkllm.session import Perf

SLACK = 2  # the first token is the prefill's in some releases, and one more may have been drawn when a run was ended


class Statistics:
    """Reads one run's numbers after the other: of this run alone, or summed up since the model was loaded."""

    def __init__(self) -> None:
        self._last: Perf | None = None

    def read(self, perf: Perf | None, prompt: int, new: int, halted: bool) -> Perf | None:
        """The numbers of a run that was given `prompt` tokens and gave `new`, or more, unheard, where it was halted;
        None where they cannot be its."""
        last, self._last = self._last, perf or self._last
        if perf is None:
            return None
        readings = [perf] if last is None else [perf, _less(perf, last)]
        return next((reading for reading in readings if _can_be(reading, prompt, new, halted)), None)


def _can_be(perf: Perf, prompt: int, new: int, halted: bool) -> bool:
    # One position at least is computed; one more than was given is a <bos> that the library adds.
    counted = new - SLACK <= perf.generate_tokens and (halted or perf.generate_tokens <= new + SLACK)
    return counted and 0 < perf.prefill_tokens <= prompt + 1


def _less(perf: Perf, last: Perf) -> Perf:
    return Perf(
        perf.prefill_tokens - last.prefill_tokens,
        perf.prefill_ms - last.prefill_ms,
        perf.generate_tokens - last.generate_tokens,
        perf.generate_ms - last.generate_ms,
        perf.peak_memory_mb,
    )
