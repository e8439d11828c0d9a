"""Is there a node of the rknpu driver, may this user open it, and who else has?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.board.facts import DOMAINS
from rk_gemma_runtime.doctor.findings import ERROR, NOTE, NPU, OK, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readers.node import Node
    from rk_gemma_runtime.doctor.readings import Readings

VENDOR_KERNEL = (
    "boot the vendor's kernel (5.10.209 or 6.1.84 and later, rknpu driver 0.9.8), from the board's own image"
)
SWITCH_ON = (
    'the device tree must have the NPU\'s nodes on (status = "okay"): take the device tree of exactly this board, or'
    " remove the overlay that switches them off"
)
UDEV = "/etc/udev/rules.d/99-rknpu.rules"
# A group that others beside root are meant to be in.
GROUPS = {"render", "video"}
MOST_NAMED = 5


def check(r: Readings) -> Iterator[Finding]:
    """Check the node, found by its driver's name."""
    node = r.npu.node
    if node is None:
        yield from _missing(r)
    elif node.present is False:
        where = f"{node.where}, and {node.path} is not in /dev"
        remedy = (
            f"give it the node: docker run --device {node.path} ..." if r.soc.container else "sudo udevadm trigger"
        )
        title = f"the NPU's node {node.path} is not there"
        yield Finding("node", ERROR, title, (where,), remedy, "driver_missing", (NPU,))
    elif node.access is False:
        yield _denied(node, bool(r.soc.container))
    else:
        title = f"the NPU is {node.path}" + ("" if node.access else "; whether it may be opened was not asked")
        yield Finding("node", OK, title, (_facts(node),))
    if node is not None and r.contiguous:
        cma = r.memory.cma_total
        size = () if cma is None else (f"/proc/meminfo: CmaTotal {cma >> 20} MiB",)
        title = "the driver's DMA-heap build: buffers come out of contiguous memory (CMA), IOMMU or not"
        remedy = "use a kernel built with ROCKCHIP_RKNPU_DRM_GEM, or a large cma= on the kernel's command line"
        yield Finding("node_misc", WARNING, title, (_facts(node), *size), remedy, "iommu_disabled")


def _missing(r: Readings) -> Iterator[Finding]:
    kernel = f"kernel {r.soc.kernel}" if r.soc.kernel else "kernel not known"
    if r.npu.other_driver:
        title = f"the NPU belongs to the mainline driver {r.npu.other_driver}, which librkllmrt cannot use"
        yield Finding("driver_missing", ERROR, title, (kernel,), VENDOR_KERNEL, "driver_missing", (NPU,))
    elif r.npu.absent:
        where = (kernel, "/sys/module/rknpu: not there", "no DRM node with the driver RKNPU, no /dev/rknpu")
        off = _switched_off(r)
        remedy = f"{VENDOR_KERNEL}; {SWITCH_ON}" if off else VENDOR_KERNEL
        yield Finding("driver_missing", ERROR, "no rknpu driver", (*where, *off), remedy, "driver_missing", (NPU,))
    elif r.npu.versions:
        off = _switched_off(r)
        evidence = (f"{r.npu.versions[0].where}: {r.npu.versions[0].text}", "no DRM node, no /dev/rknpu", *off)
        title = "the rknpu driver is loaded and has no node"
        remedy = (
            SWITCH_ON
            if off
            else "is the NPU enabled in the device tree? dmesg | grep -i rknpu; in a container: --device /dev/dri"
        )
        yield Finding("node", ERROR, title, evidence, remedy, "driver_missing", (NPU,))
    else:
        title = "whether there is an rknpu driver cannot be seen"
        yield Finding("driver_missing", ERROR, title, ("/sys shows nothing",), "mount /sys", "driver_missing", (NPU,))


def _switched_off(r: Readings) -> tuple[str, ...]:
    names = ", ".join(r.npu.switched_off[:MOST_NAMED])
    return (f"switched off in the device tree: {names}",) if names else ()


def _denied(node: Node, container: bool) -> Finding:
    if container:
        remedy = f"docker run --device {node.path} --group-add $(stat -c %g {node.path}) ..."
    elif node.group in GROUPS and node.mode[-2:-1] in {"6", "7"}:
        remedy = f"sudo usermod -aG {node.group} $USER, then log in again"
    else:
        match = 'KERNEL=="rknpu"' if node.kind == "misc" else 'SUBSYSTEM=="drm", KERNEL=="renderD*"'
        line = f'{match}, GROUP="render", MODE="0660"'
        remedy = f"echo '{line}' | sudo tee {UDEV} && sudo udevadm control --reload && sudo udevadm trigger"
        remedy += " && sudo usermod -aG render $USER, then log in again"
    title = f"this user may not open {node.path}"
    return Finding("node_permission", ERROR, title, (_facts(node),), remedy, "permission", (NPU,))


def _facts(node: Node) -> str:
    rights = f", mode {node.mode} {node.owner}:{node.group}" if node.mode else ""
    return f"{node.where}: {node.path}{rights}"


def _beside(r: Readings) -> str:
    """What others hold is known where a profile or a probe tells it."""
    taken = sorted({hold.domain for hold in r.board().npu.holds})
    free = next((number for number in range(DOMAINS) if number not in taken), None)
    if not taken:
        return "stop them before loading a large model; run and chat try another IOMMU domain by themselves"
    words = f"stop them before loading a large model; they hold buffers in domain {', '.join(map(str, taken))}"
    return words if free is None else f"{words}, --npu-domain {free} is free"


def check_users(r: Readings) -> Iterator[Finding]:
    """Check for others who share the addresses of the NPU's domains."""
    users = r.npu.users
    if users is None or r.npu.node is None:
        return
    if users.seen:
        named = tuple(f"process {user.pid}: {user.name}" for user in users.seen[:MOST_NAMED])
        title = f"other programs have the NPU open ({len(users.seen)}); they share its addresses and its time"
        yield Finding("npu_users", WARNING, title, named, _beside(r), "npu_malloc_iova_exhausted")
    if users.unseen:
        title = f"{users.unseen} processes of other users may have the NPU open: their files cannot be seen"
        node = r.npu.node.path
        yield Finding("npu_users_unseen", NOTE, title, (), f"sudo fuser -v {node}")
    if not users.seen and not users.unseen:
        yield Finding("npu_users", OK, "no other program has the NPU open", ("/proc/*/fd",))
