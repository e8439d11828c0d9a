"""Values that lines state: versions, sizes, errno, platform. Each is kept with its line, since a log may hold several
loads: a lookup returns the latest value stated at or before the given line.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.board.versions import version_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rk_gemma_runtime.board.facts import Board

MOST = 256  # readings of one name
GIB = 1 << 30
# Below this driver the runtime warns, and a buffer is aligned to the next power of two (rknpu 0.9.6 and 0.9.8).
PAGE_ALIGNED_DRIVER = "0.9.7"
# What is stated of an event, and so behind the line that names the event; other values hold from their line on.
_AFTER = frozenset({"size", "errno"})
_NUMBERS = frozenset({"size", "errno", "max_context_limit", "npu_core_num", "domain"})


@dataclass(frozen=True)
class Reader:
    """A text to find the line by, and a regex whose groups are named as the values."""

    needles: tuple[str, ...]
    regex: re.Pattern[str]


def _reader(needles: str, regex: str) -> Reader:
    return Reader(tuple(needles.split("|")), re.compile(regex, re.IGNORECASE))


VERSION = r"v?\d{1,3}\.\d{1,3}(?:\.\d{1,3})?(?:(?:b|rc)\d{0,3})?"
# Drivers of this NPU are all 0.x; others that logs name (of GPUs, cameras) are not.
DRIVER = r"v?0\.\d{1,2}(?:\.\d{1,3})?"
_IS = r"[\"']?(?: \(\w{1,8}\))?(?: is|为|是| ?[:=\uff1a]|,)?[ \"'(]{0,3}"
# A version that somebody wants is not the one that is there.
_NOT_ASKED = r"(?<!with )(?<!need )(?<!needs )(?<!wants )(?<!requires )(?<!to )(?<!than )"
READERS = (
    _reader("runtime version", rf"rkllm-runtime version: ?(?P<runtime_version>{VERSION})"),
    _reader("rkllm sdk (version", rf"RKLLM SDK \(version: ?(?P<runtime_version>{VERSION})"),
    _reader("driver ver|driver_ver", rf"driver[ _]ver(?:sion)?{_IS}(?P<driver_version>{DRIVER})"),
    _reader("driver information", rf"Driver Information[:,] ?version: ?(?P<driver_version>{VERSION})"),
    _reader(
        "npu driver|npu_driver|驱动",
        rf"(?:npu[ _]?driver|驱动(?:程序)?(?:版本)?号?){_IS}(?P<driver_version>{DRIVER})",
    ),
    _reader("initialized rknpu", rf"Initialized rknpu (?P<driver_version>{VERSION})"),
    _reader("rknpu", rf"{_NOT_ASKED}rknpu(?:[ /_]version| kernel driver)?{_IS}(?P<driver_version>{DRIVER})"),
    _reader("rknpu.ko", rf"rknpu\.ko\S{{0,8}}\s+version:\s+(?P<driver_version>{DRIVER})"),
    _reader("librknnrt ver|rknnrt ver", rf"rknnrt version: ?(?P<rknn_runtime>{VERSION})"),
    _reader("sdk version", rf"\bsdk version: ?(?P<rknn_runtime>{VERSION})"),
    _reader("api version", rf"\bAPI version: ?(?P<rknn_runtime>{VERSION})"),
    _reader("toolkit version", rf"(?<!rkllm-)toolkit version: ?(?P<rknn_toolkit>{VERSION})"),
    _reader("rknn-toolkit", rf"rknn-toolkit(?:2|-lite2?) version: ?(?P<rknn_toolkit>{VERSION})"),
    _reader("please upgrade to", rf"driver version is too low,? please upgrade to (?P<driver_minimum>{VERSION})"),
    _reader("platform:", r"driver version: ?\S{1,20},? platform: ?(?P<platform>[\w-]{2,20})"),
    _reader("toolkit version", rf"rkllm-toolkit version: ?(?P<toolkit_version>{VERSION})"),
    _reader("max_context_limit", r"max_context_limit(?:: ?|\[)(?P<max_context_limit>\d{1,9})"),
    _reader("npu_core_num", r"npu_core_num: ?(?P<npu_core_num>\d{1,3})"),
    _reader("target_platform:", r"target_platform: ?(?P<target_platform>[\w-]{2,20})"),
    _reader("model_dtype", r"model_dtype: ?(?P<model_dtype>\w{2,20})"),
    _reader("malloc npu memory", r"malloc npu memory!?,? ?size: ?(?P<size>\d{1,19})"),
    _reader("dma map", r"dma map (?P<size>\d{1,19}) fail"),
    _reader("failed to allocate", r"failed to allocate (?:non-contiguous )?(?P<size>\d{1,19}) buffer"),
    _reader("malloc cpu memory", r"malloc cpu memory,? ?size: ?(?P<size>\d{1,19})"),
    _reader("errno", r"errno:? ?(?P<errno>\d{1,3})\b"),
    _reader("for domain", r"weight memory for domain ?(?P<domain>\d{1,2})"),
    _reader("base domain id", r"Base Domain ID: ?(?P<domain>\d{1,3})"),
    _reader("iommu domain", r"(?:switch )?iommu domain,? id: (?P<domain>\d{1,3})"),
)
# What a line of the NPU stack holds, at least.
STACK = ("rkllm", "rknn", "rknpu")


@dataclass(frozen=True)
class LogFacts:
    """The values that a log states, where the first verdict stands; None for what it does not. `sizes` are the
    buffers that could not be had, in bytes."""

    runtime_version: str | None = None
    toolkit_version: str | None = None
    driver_version: str | None = None
    platform: str | None = None
    model_dtype: str | None = None
    max_context_limit: int | None = None
    sizes: tuple[int, ...] = ()
    errnos: tuple[int, ...] = ()
    domain: int | None = None
    signal: int | None = None

    def tree(self) -> dict[str, Any]:
        """Return the keys of `explain --json`."""
        names = (
            "runtime_version",
            "toolkit_version",
            "driver_version",
            "platform",
            "model_dtype",
            "max_context_limit",
        )
        return {**{name: getattr(self, name) for name in names}, "sizes": list(self.sizes)}


@dataclass
class Readings:
    """What was read so far, and what was known before."""

    known: Mapping[str, object] = field(default_factory=dict)
    board: Board | None = None
    signal: int | None = None
    _values: dict[str, list[tuple[int, object]]] = field(default_factory=dict)

    def read(self, reader: Reader, number: int, text: str) -> None:
        """Take what a line states."""
        for found in reader.regex.finditer(text):
            for name, value in found.groupdict().items():
                self._take(name, number, int(value) if name in _NUMBERS else value.removeprefix("v"))

    def _take(self, name: str, number: int, value: object) -> None:
        series = self._values.setdefault(name, [])
        if len(series) < MOST and (number, value) not in series[-4:]:
            series.append((number, value))

    def all(self, name: str) -> tuple[Any, ...]:
        """Return every value of a name, each once, in order."""
        return tuple(dict.fromkeys(value for _, value in self._values.get(name, ())))

    def lines(self, name: str) -> list[int]:
        """Return the lines that gave a name a value."""
        return [number for number, _ in self._values.get(name, ())]

    def value(self, name: str, line: int | None = None) -> object:
        """Look up `name` at a line of the log (None: at its end). What the log does not say is taken from what was
        known before, then from the board."""
        if name.startswith("board."):
            return self._board(name)
        derived = getattr(self, f"_{name}", None)
        if derived is not None:
            return derived(line)
        series = self._values.get(name)
        if series:
            return _at(series, line, name in _AFTER)
        if name == "signal":
            return self.signal
        known = self.known.get(name)
        return self._of_board(name) if known in {None, ""} else known

    def _driver_old(self, line: int | None) -> bool | None:
        """Whether the driver is below 0.9.7, by its version or by the runtime's warning."""
        version = self.value("driver_version", line)
        if version is None:
            return True if self.all("driver_minimum") else None
        return version_key(str(version)) < version_key(PAGE_ALIGNED_DRIVER)

    def _largest_size(self, line: int | None) -> int | None:
        return max(self.all("size"), default=None)

    def _board(self, name: str) -> object:
        value: object = self.board
        for part in name.split(".")[1:]:
            value = getattr(value, part, None)
        return value

    def _of_board(self, name: str) -> object:
        places = {"driver_version": "board.npu.driver", "platform": "board.npu.platform"}
        return (self._board(places[name]) or None) if name in places else None

    def facts(self, line: int | None) -> LogFacts:
        """Return the latest values stated at or before a line."""
        words = {
            name: None if (value := self.value(name, line)) is None else str(value)
            for name in ("runtime_version", "toolkit_version", "driver_version", "platform", "model_dtype")
        }
        limit, domain = self.value("max_context_limit", line), self.value("domain", line)
        return LogFacts(
            **words,
            max_context_limit=limit if isinstance(limit, int) else None,
            sizes=self.all("size"),
            errnos=self.all("errno"),
            domain=domain if isinstance(domain, int) else None,
            signal=self.signal,
        )

    def words(self, line: int | None) -> dict[str, str]:
        """Write values as a sentence shows them; names without a value are absent."""
        names = ("runtime_version", "toolkit_version", "driver_version", "driver_minimum", "platform", "model_dtype",
                 "rknn_runtime", "rknn_toolkit", "target_platform", "max_context_limit", "errno", "domain",
                 "npu_core_num")  # fmt: skip
        words = {name: str(value) for name in names if (value := self.value(name, line)) is not None}
        sizes = {
            "size": self.value("size", line),
            "ram": self._board("board.memory.total"),
            "ram_available": self._board("board.memory.available"),
        }
        words |= {name: in_bytes(value) for name, value in sizes.items() if isinstance(value, int)}
        places = {"node": "board.npu.node", "nofile": "board.limits.nofile_soft", "board": "board.title"}
        words |= {name: str(value) for name, place in places.items() if (value := self._board(place))}
        return words


def _at(series: list[tuple[int, object]], line: int | None, after: bool) -> object:
    if line is None:
        return series[-1][1]
    numbers = [number for number, _ in series]
    if after:
        index = next((i for i, number in enumerate(numbers) if number >= line), len(series) - 1)
    else:
        index = max(0, bisect_right(numbers, line) - 1)
    return series[index][1]


def in_bytes(value: int) -> str:
    """Write a size for people: with MiB or GiB behind it."""
    unit, name = (GIB, "GiB") if value >= GIB else (1 << 20, "MiB")
    return f"{value} bytes ({value / unit:.4g} {name})" if value >= 1 << 20 else f"{value} bytes"
