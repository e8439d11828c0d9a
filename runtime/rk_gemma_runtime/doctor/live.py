"""Board facts that are not files (kernel, log, nodes, processes, driver), as text."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from rk_gemma_runtime import children
from rk_gemma_runtime.doctor.directory import describe
from rk_gemma_runtime.doctor.reader import Reader
from rk_gemma_runtime.doctor.readers import node as nodes
from rk_gemma_runtime.doctor.readers.log import pick_lines
from rk_gemma_runtime.doctor.root import FAULTS, Root
from rk_gemma_runtime.driver import ask
from rk_gemma_runtime.errors import EngineError

DMESG_LIMIT_S = 10.0
ENGINE_LIMIT_S = 60.0  # loads 100 MB from an SD card


def here(directory: Path) -> dict[str, bytes]:
    """Collect the texts of the running system, by the names under which a capture has them. Blocks while the driver
    is asked and llama.cpp is loaded, each in a process of its own."""
    texts = {"rk-gemma/uname": f"{os.uname().release} {os.uname().machine}\n", "rk-gemma/engine": engine()}
    texts |= describe(directory, opened=True)
    found = nodes.read(Reader(Root(directory, _bytes(texts)))).node
    if found is None or found.access:
        texts |= _answers(found.path if found else "")
    node = texts.pop("node", "") or (found.path if found else "")
    texts["rk-gemma/users"] = users(node) if node else ""
    log, fault = kernel_log()
    texts |= {FAULTS: f"rk-gemma/dmesg\t{fault}\n"} if fault else {"rk-gemma/dmesg": log}
    return _bytes(texts)


def _bytes(texts: dict[str, str]) -> dict[str, bytes]:
    return {name: text.encode("utf-8", errors="replace") for name, text in texts.items()}


def kernel_log() -> tuple[str, str]:
    """Read the lines about the NPU from dmesg; returns them, and why they could not be read."""
    try:
        done = subprocess.run(
            ["dmesg"], capture_output=True, timeout=DMESG_LIMIT_S, stdin=subprocess.DEVNULL, check=False,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError:
        return "", "dmesg is not installed"
    except (OSError, subprocess.TimeoutExpired):
        return "", "dmesg did not answer"
    if done.returncode != 0:
        denied = b"not permitted" in done.stderr or b"denied" in done.stderr
        return "", "permission denied" if denied else "dmesg failed"
    lines = pick_lines(done.stdout.decode("utf-8", errors="replace"))
    return "".join(f"{line}\n" for line in lines), ""


def users(node: str, proc: Path = Path("/proc")) -> str:
    """List the processes that have the node open: `PID NAME`, and how many could not be looked at."""
    lines, unseen = [], 0
    for pid in sorted(int(p.name) for p in proc.iterdir() if p.name.isdecimal()):
        try:
            holds = node in _open_files(proc / str(pid) / "fd")
        except PermissionError:
            unseen += 1
            continue
        except OSError:  # it has ended
            continue
        if holds and pid != os.getpid():
            lines.append(f"{pid} {_comm(proc / str(pid))}")
    return "".join(f"{line}\n" for line in [*lines, *([f"unseen {unseen}"] if unseen else [])])


def _open_files(folder: Path) -> list[str]:
    found = []
    for name in os.listdir(folder):
        try:
            found.append(os.readlink(folder / name))
        except OSError:
            continue
    return found


def _comm(process: Path) -> str:
    try:
        raw = (process / "comm").read_bytes()[:64]
    except OSError:
        return "unknown"
    return "".join(c for c in raw.decode(errors="replace").strip() if c.isprintable()) or "unknown"


def engine() -> str:
    """Ask llama.cpp for its build in a process of its own: a build for another CPU dies there."""
    empty = {"version": "", "machine": os.uname().machine, "system": ""}
    try:
        command = children.command("rk_gemma_runtime.engines.cpuinfo")
        done = subprocess.run(
            command, capture_output=True, timeout=ENGINE_LIMIT_S, stdin=subprocess.DEVNULL, check=False,
            env=children.environment(),
        )  # fmt: skip
    except (OSError, EngineError, subprocess.TimeoutExpired):
        return json.dumps({**empty, "fault": "loading it did not end"})
    if done.returncode < 0:
        return json.dumps({**empty, "fault": f"loading it ended with signal {-done.returncode}"})
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode != 0 or not lines:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return json.dumps({**empty, "fault": said[-1][:200] if said else "loading it failed"})
    return lines[-1]


def _answers(node: str) -> dict[str, str]:
    """Ask the driver. Without `node` it is searched for."""
    answer = ask.facts(node)
    if answer.get("refused"):
        return {"rk-gemma/driver-silent": f"{answer['refused']}\n"} if node else {}
    found = str(answer["node"])
    texts = {"node": found}
    if answer.get("drm"):
        texts["rk-gemma/drm"] = f"{found} {' '.join(answer['drm'])}\n"
    if answer.get("actions"):
        texts["rk-gemma/actions"] = "".join(f"{name} {value}\n" for name, value in answer["actions"].items())
    return texts
