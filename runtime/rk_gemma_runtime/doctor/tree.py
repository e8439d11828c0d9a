"""A profile as a directory: the files that such a board shows, so that the doctor reads every board in one way."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.board.chips import platform_of
from rk_gemma_runtime.board.profile import SYSTEM_BYTES
from rk_gemma_runtime.board.versions import version_of
from rk_gemma_runtime.doctor.reader import cpu_list
from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

GIB = 1 << 30
CPUS = 8
RENDER = "/dev/dri/renderD129"
NPU_DEVICE = "fdab0000.npu"
SMALL_KHZ = 1800000
# CPUs of each cpufreq policy: four small cores, two clusters of two big ones.
POLICIES = {0: range(0, 4), 4: range(4, 6), 6: range(6, 8)}
MOST_PIDS = 100


def write_tree(profile: Mapping[str, Any], directory: Path) -> None:
    """Write what a board of this profile shows under /proc, /sys and /dev. Raises UsageError for values that cannot
    be, and OSError."""
    try:
        files = dict(_files(profile))
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise UsageError(f"not a board profile: {error}") from error
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _files(profile: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield from _identity(profile)
    yield from _npu(_part(profile, "npu"))
    yield from _memory(_part(profile, "memory"))
    yield from _limits(_part(profile, "limits"))
    yield from _cpu(_part(profile, "cpu"))
    yield from _clocks(_part(profile, "clocks"))
    yield from _thermal(_part(profile, "thermal"))
    log = profile.get("dmesg")
    if log:
        yield "rk-gemma/dmesg", "".join(f"{line}\n" for line in log.values())


def _part(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return tree.get(name) or {}


def _absent(value: object) -> bool:
    return value in {None, "none"}


def _identity(profile: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    container = profile.get("container")
    title, chip = str(profile.get("board") or ""), str(profile.get("soc") or "rk3588")
    if container:
        yield "rk-gemma/container", f"{container}\n"
    else:
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        family = dict.fromkeys((chip, platform_of(chip).lower()))
        yield "proc/device-tree/model", f"{title}\0"
        words = (f"rockchip,{chip}-{slug}", *(f"rockchip,{name}" for name in family))
        yield "proc/device-tree/compatible", "".join(f"{word}\0" for word in words)
        yield "rk-gemma/container", "none\n"
    yield "rk-gemma/uname", f"{profile.get('kernel') or 'unknown'} aarch64\n"


def _npu(npu: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The GPU's node comes first on every board, so the NPU's number is never 128."""
    yield "sys/class/drm/renderD128/device/uevent", "DRIVER=panthor\nOF_COMPATIBLE_0=rockchip,rk3588-mali\n"
    nodes = ["/dev/dri/renderD128 660 root render ?"]
    driver = npu.get("driver", "0.9.8")
    if npu.get("rocket"):
        yield "sys/class/accel/accel0/device/uevent", "DRIVER=rocket\nOF_COMPATIBLE_0=rockchip,rk3588-rknn-core\n"
    if not _absent(driver):
        node = str(npu.get("node") or RENDER)
        if not _absent(node):
            may = bool(npu.get("access", True))
            nodes.append(f"{node} 660 root {npu.get('group') or 'render'} {'rw' if may else 'denied'}")
        yield from _driver(npu, str(driver), node)
    yield "rk-gemma/nodes", "".join(f"{line}\n" for line in nodes)
    hidden = _hidden(npu)
    if hidden:
        yield "rk-gemma/described", json.dumps(hidden)
    yield "rk-gemma/users", f"1234 {npu['occupied_by']}\n" if npu.get("occupied_by") else ""


def _hidden(npu: Mapping[str, Any]) -> dict[str, Any]:
    """What a profile says of the NPU and no file of a board shows."""
    holds = {str(domain): str(sizes) for domain, sizes in (npu.get("occupied") or {}).items()}
    told = {"occupied": holds, "occupied_by": str(npu.get("occupied_by") or "")} if holds else {}
    return told | {key: npu[key] for key in ("fds", "iova_alignment", "multi_domain") if not _absent(npu.get(key))}


def _driver(npu: Mapping[str, Any], driver: str, node: str) -> Iterable[tuple[str, str]]:
    iommu = bool(npu.get("iommu", True))
    major, minor, patch = version_of(driver)
    yield "sys/module/rknpu/version", f"{driver}\n"
    yield "sys/kernel/debug/rknpu/version", f"RKNPU driver: v{driver}\n"
    yield "sys/kernel/debug/rknpu/load", "NPU load:  Core0:  0%, Core1:  0%, Core2:  0%,\n"
    if bool(npu.get("access", True)) and not _absent(node):
        code = major * 10000 + minor * 100 + patch
        yield "rk-gemma/actions", f"GET_DRV_VERSION {code}\nGET_IOMMU_EN {int(iommu)}\n"
    if node.startswith("/dev/dri/"):
        device = f"sys/class/drm/{node.rpartition('/')[2]}/device"
        yield f"{device}/uevent", "DRIVER=RKNPU\nOF_COMPATIBLE_0=rockchip,rk3588-rknpu\n"
        if iommu:
            yield f"{device}/iommu_group/type", "DMA\n"


def _kib(gib: float) -> int:
    return int(gib * GIB) // 1024


def _memory(memory: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    swap, zram = float(memory.get("swap_gb") or 0), float(memory.get("zram_gb") or 0)
    free = float(memory.get("swap_free_gb") or 0)
    lines = ["Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority"]
    if zram:
        lines.append(f"/dev/zram0                              partition\t{_kib(zram)}\t\t0\t\t100")
    if swap > zram:
        lines.append(f"/swapfile                               file\t\t{_kib(swap - zram)}\t\t0\t\t-2")
    yield "proc/swaps", "\n".join(lines) + "\n"
    total = memory.get("ram_gb")
    if total is None:
        return
    available = memory.get("available_gb")
    left = max(0.0, float(total) - SYSTEM_BYTES / GIB) if available is None else float(available)
    cma = int(float(memory.get("cma_mb") or 16) * 1024)
    sizes = {"MemTotal": _kib(float(total)), "MemFree": _kib(left / 2), "MemAvailable": _kib(left)}
    sizes |= {"SwapTotal": _kib(swap), "SwapFree": _kib(free), "CmaTotal": cma, "CmaFree": cma}
    yield "proc/meminfo", "".join(f"{name + ':':<16}{size:>8} kB\n" for name, size in sizes.items())


def _limits(limits: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    soft, hard = int(limits.get("nofile_soft", 1024)), int(limits.get("nofile_hard", 1048576))
    head = f"{'Limit':<26}{'Soft Limit':<21}{'Hard Limit':<21}Units"
    yield "proc/self/limits", f"{head}\n{'Max open files':<26}{soft:<21}{hard:<21}files\n"


def _cpu(cpu: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    online = str(cpu.get("online") or "0-7")
    big = set(cpu_list(str(cpu.get("big") or "4-7")))
    features = str(cpu.get("features") or "fp asimd")
    yield "sys/devices/system/cpu/online", f"{online}\n"
    cores = (f"processor\t: {n}\nFeatures\t: {features}\nCPU part\t: 0xd0{'b' if n in big else '5'}\n"
             for n in cpu_list(online))  # fmt: skip
    yield "proc/cpuinfo", "\n".join(cores) + "\nSerial\t\t: 0000000000000000\n"
    most = int(cpu.get("big_max_khz") or 2352000)
    for number, cores_of in POLICIES.items():
        fast = bool(big & set(cores_of))
        folder = f"sys/devices/system/cpu/cpufreq/policy{number}"
        yield f"{folder}/scaling_governor", f"{cpu.get('governor') or 'performance'}\n"
        yield f"{folder}/scaling_cur_freq", f"{int(cpu.get('big_khz') or most) if fast else SMALL_KHZ}\n"
        yield f"{folder}/scaling_max_freq", f"{most if fast else SMALL_KHZ}\n"
        yield f"{folder}/cpuinfo_max_freq", f"{most if fast else SMALL_KHZ}\n"


def _clocks(clocks: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key, name in (("npu", NPU_DEVICE), ("ddr", "dmc")):
        current, most = clocks.get(f"{key}_hz"), clocks.get(f"{key}_max_hz")
        if _absent(current) or _absent(most):
            continue
        folder = f"sys/class/devfreq/{name}"
        yield f"{folder}/cur_freq", f"{int(str(current))}\n"
        steps = sorted({int(str(current)), int(str(most))})
        yield f"{folder}/available_frequencies", " ".join(map(str, steps)) + "\n"
        yield f"{folder}/governor", f"{clocks.get(f'{key}_governor') or 'userspace'}\n"


def _thermal(thermal: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    zones = {"soc-thermal": thermal.get("soc_c", 45), "npu-thermal": thermal.get("npu_c", 45)}
    for number, (name, degrees) in enumerate(zones.items()):
        yield f"sys/class/thermal/thermal_zone{number}/type", f"{name}\n"
        yield f"sys/class/thermal/thermal_zone{number}/temp", f"{int(float(degrees) * 1000)}\n"
    state = 3 if thermal.get("throttled") else 0
    for number, name in enumerate(("thermal-cpufreq-0", "thermal-devfreq-0", "pwm-fan")):
        yield f"sys/class/thermal/cooling_device{number}/type", f"{name}\n"
        yield f"sys/class/thermal/cooling_device{number}/cur_state", f"{2 if name == 'pwm-fan' else state}\n"
