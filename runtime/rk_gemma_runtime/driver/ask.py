"""Asking the driver from outside: a child process opens the node, and is killed if the kernel keeps it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from rk_gemma_runtime import children
from rk_gemma_runtime.errors import EngineError

FACTS_LIMIT_S = 10.0
PROBE_LIMIT_S = 10.0
KILL_AFTER_S = 20.0
GRACE_S = 3.0


def facts(node: str = "", limit_s: float = FACTS_LIMIT_S) -> dict[str, Any]:
    """{node, drm: [name, version, date], actions: {name: value}}, or {refused: why}; without a node it is searched
    for. Blocks for the limit at most."""
    return _ask(["facts", node], limit_s)


def probe(
    node: str, budget: int, domain: int = 0, seconds: float = PROBE_LIMIT_S, kill_after_s: float = KILL_AFTER_S
) -> dict[str, Any]:
    """driver.probe.Result as a mapping, or {refused: why}. Blocks for `kill_after_s` at most."""
    return _ask(["probe", node, str(budget), str(seconds), str(domain)], kill_after_s)


def _ask(arguments: list[str], limit_s: float) -> dict[str, Any]:
    try:
        command = children.command("rk_gemma_runtime.driver", *arguments)
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
    """First as a request, so that buffers are given back, then for good."""
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
