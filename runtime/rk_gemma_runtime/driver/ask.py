"""Asking the driver from outside: a child process opens the node, and is killed if the kernel keeps it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass, field
from typing import Any

from rk_gemma_runtime import children
from rk_gemma_runtime.errors import EngineError

FACTS_LIMIT_S = 10.0
PROBE_LIMIT_S = 10.0
KILL_AFTER_S = 20.0
GRACE_S = 3.0


@dataclass
class Result:
    """What a probe measured of one domain, in bytes. `..._exact` is False where RAM or time ended the search first:
    then it is a lower bound. `notes` are what went wrong on the way, `refused` why nothing was measured."""

    domain: int = 0
    flags: int = 0
    largest: int | None = None
    largest_exact: bool = False
    free: int | None = None
    free_exact: bool = False
    alignment: str | None = None
    multi_domain: bool | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    refused: str = ""

    def tree(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return asdict(self)


def facts(node: str = "", limit_s: float = FACTS_LIMIT_S) -> dict[str, Any]:
    """Ask for {node, drm: [name, version, date], actions: {name: value}}, or {refused: why}; without a node it is
    searched for. Blocks for the limit at most."""
    return _ask(["facts", node], limit_s)


def probe(
    node: str, budget: int, domain: int = 0, seconds: float = PROBE_LIMIT_S, kill_after_s: float = KILL_AFTER_S
) -> dict[str, Any]:
    """Probe a domain: a Result as plain data, or {refused: why}. Blocks for `kill_after_s` at most."""
    return _ask(["probe", node, str(budget), str(seconds), str(domain)], kill_after_s)


def _ask(arguments: list[str], limit_s: float) -> dict[str, Any]:
    try:
        command = children.command("rk_gemma_runtime.driver.__main__", *arguments)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=children.environment(),
        )
    except (OSError, EngineError) as error:
        return {"refused": f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)}
    try:
        out, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()  # it has had twice its own time: the kernel frees what it held
        return {"refused": _kill(process, limit_s)}
    finally:  # also Ctrl-C here
        _end(process)
    try:
        answer = json.loads(out)
    except ValueError:
        return {"refused": f"the process that asks the driver ended with status {process.returncode}"}
    return answer if isinstance(answer, dict) else {"refused": "no answer"}


def _kill(process: subprocess.Popen[bytes], limit_s: float) -> str:
    _end(process)
    stuck = "; it cannot be killed and stays until the kernel lets it go" if process.returncode is None else ""
    return f"the driver did not answer within {limit_s:g} s{stuck}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process: first as a request, so that buffers are given back, then for good."""
    for end in (process.terminate, process.kill):
        if process.poll() is not None:
            break
        end()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue
    if process.stdout is not None:
        process.stdout.close()
