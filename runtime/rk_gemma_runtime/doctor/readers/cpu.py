"""The CPU: cores on line, what they can do, how fast the big ones run; and llama.cpp's build for it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.reader import cpu_list, number, quote, word

if TYPE_CHECKING:
    from rk_gemma_runtime.doctor.reader import Reader

CPU = "sys/devices/system/cpu"
CPUINFO = "proc/cpuinfo"
ENGINE = "rk-gemma/engine"
POLICY = re.compile(r"policy[0-9]{1,3}")
SWITCH = re.compile(r"([A-Z0-9_]+) = ([01])")


@dataclass(frozen=True)
class Policy:
    """CPUs that share a clock, in kHz. `most` is what the hardware can, `limit` what it may now."""

    name: str
    governor: str | None
    current: int | None
    limit: int | None
    most: int | None


@dataclass(frozen=True)
class CpuEngine:
    """llama.cpp as installed here. `system` are its switches such as DOTPROD, `fault` why it cannot be used."""

    version: str
    machine: str
    system: dict[str, bool]
    fault: str


@dataclass(frozen=True)
class CpuReading:
    """`features` are those that all cores have; None where /proc/cpuinfo does not tell."""

    online: tuple[int, ...] | None
    features: frozenset[str] | None
    policies: tuple[Policy, ...]
    engine: CpuEngine | None

    @property
    def big(self) -> tuple[Policy, ...]:
        """The policies of the fastest cores, if there are slower ones."""
        speeds = [policy.most for policy in self.policies if policy.most is not None]
        if not speeds:
            return ()
        # The two big clusters of one SoC may differ by a few MHz; the small one is far below.
        return tuple(p for p in self.policies if p.most is not None and p.most * 10 >= max(speeds) * 9)


def read(reader: Reader) -> CpuReading:
    """Read /sys/devices/system/cpu and /proc/cpuinfo."""
    names = [name for name in reader.root.names(f"{CPU}/cpufreq") if POLICY.fullmatch(name)]
    policies = tuple(_policy(reader, name) for name in sorted(names, key=lambda name: int(name[6:])))
    return CpuReading(
        online=reader.value(f"{CPU}/online", cpu_list),
        features=reader.value(CPUINFO, _features),
        policies=policies,
        engine=reader.value(ENGINE, _engine, needed=False),
    )


def _policy(reader: Reader, name: str) -> Policy:
    folder = f"{CPU}/cpufreq/{name}"
    return Policy(
        name,
        reader.value(f"{folder}/scaling_governor", word),
        reader.value(f"{folder}/scaling_cur_freq", number),
        reader.value(f"{folder}/scaling_max_freq", number),
        reader.value(f"{folder}/cpuinfo_max_freq", number),
    )


def _features(text: str) -> frozenset[str]:
    """Arm kernels write `Features`, x86 ones `flags`."""
    pairs = (line.partition(":") for line in text.splitlines())
    lists = [set(rest.split()) for name, _, rest in pairs if name.strip() in {"Features", "flags"}]
    if not lists:
        raise ValueError("names no features of the CPU")
    return frozenset(set.intersection(*lists))


def _engine(text: str) -> CpuEngine:
    try:
        tree = json.loads(text)
        switches = {name: value == "1" for name, value in SWITCH.findall(str(tree["system"]))}
        return CpuEngine(str(tree["version"]), str(tree["machine"]), switches, str(tree["fault"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{quote(text)} does not describe an engine") from None
