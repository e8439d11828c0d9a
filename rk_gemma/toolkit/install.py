"""Setting the toolkit up: an environment with its packages, then its wheel, then proof that it can be imported."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma.toolkit.conversion import convert
from rk_gemma.toolkit.errors import EnvironmentFault, ToolkitError
from rk_gemma.toolkit.homes import Environment, building, place_of, write_notes
from rk_gemma.toolkit.interpreter import check_host, find_interpreter
from rk_gemma.toolkit.process import run, watched
from rk_gemma.toolkit.releases import LAST, check_release, pins_of, read_pins, split_torch
from rk_gemma.toolkit.wheel import Wheel
from rk_gemma_runtime.diagnosis import diagnose

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma.toolkit.interpreter import Interpreter

    Say = Callable[[str], None]

NONE = "none"
CPU_TORCH = "https://download.pytorch.org/whl/cpu"
# Measured: torch 2.6.0's CPU wheel has 178 MB, its CUDA build 2.6 GB with what it needs; the rest about 600 MB.
CPU_GB, CUDA_GB = (0.8, 3.0), (3.2, 9.0)
OWN_BUILD = ("auto_gptq", "auto-gptq", "transformers_stream_generator", "transformers-stream-generator")


@dataclass(frozen=True)
class Plan:
    """What will be installed, in this order: torch from its index, the others, the wheel alone, and the last."""

    wheel: Wheel
    python: Interpreter
    name: str
    pins: tuple[str, ...]
    torch_index: str
    packages: str


def plan_setup(path: Path, python: str, name: str, pins: str, torch_index: str, system: str, machine: str) -> Plan:
    """Check all that can be checked before anything is installed. `pins` is a file, none, or empty for the table's.
    Raises HostError, WheelError, EnvironmentFault."""
    check_host(system, machine)
    wheel = Wheel.open(path)
    release = check_release(wheel, own_pins=bool(pins))
    interpreter = find_interpreter(wheel, python)
    chosen = () if pins == NONE else read_pins(Path(pins)) if pins else pins_of(release, wheel)
    name = name or f"rkllm-{wheel.version}-{wheel.tag}"
    folder = place_of(name)
    if os.path.lexists(folder):
        raise EnvironmentFault(f"{folder}: exists; `rk-gemma toolkit remove {name}`, or give another --name")
    return Plan(wheel, interpreter, name, chosen, torch_index or CPU_TORCH, pins or "pins")


def announce(plan: Plan) -> str:
    """Say what a setup will fetch, before it does."""
    into = f"{place_of(plan.name)} (Python {plan.python.full})"
    if not plan.pins:
        return f"rkllm-toolkit {plan.wheel.version} into {into}, without its packages"
    load, disk = _sizes(plan)
    return (
        f"rkllm-toolkit {plan.wheel.version} into {into}: about {load:g} GB to download, {disk:g} GB on the disk;"
        f" torch from {plan.torch_index}"
    )


def _sizes(plan: Plan) -> tuple[float, float]:
    return CPU_GB if "cpu" in plan.torch_index.rstrip("/").rpartition("/")[2] else CUDA_GB


def set_up(plan: Plan, say: Say) -> Environment:
    """Make the environment. Raises EnvironmentFault or ToolkitError; then nothing is left."""
    folder = place_of(plan.name)
    _check_space(plan, folder)
    with building(folder) as partial, watched(partial):
        env = Environment(partial, plan.name, plan.wheel.version, plan.python.full, plan.packages)
        _make_venv(plan, partial)
        for what, arguments in _installs(plan, partial):
            if what:
                say(what)
            _pip(partial, arguments)
        _prove(env)
        write_notes(partial, env)
    return Environment(folder, plan.name, env.toolkit, env.python, env.packages)


def _check_space(plan: Plan, folder: Path) -> None:
    place = next(parent for parent in folder.parents if parent.is_dir())
    need = _sizes(plan)[1] if plan.pins else 0.05
    free = shutil.disk_usage(place).free
    if free < need * 1e9:
        raise EnvironmentFault(
            f"{place}: no space: the toolkit takes {need:g} GB and {free / 1e9:.1f} GB are free; set RK_GEMMA_HOME"
            " to a directory on another disk"
        )


def _make_venv(plan: Plan, partial: Path) -> None:
    ended = run([plan.python.path, "-I", "-m", "venv", "--clear", str(partial)], folder=partial, env=_plain())
    if ended.code:
        why = ended.lines[-1] if ended.lines else "it printed nothing"
        raise EnvironmentFault(f"{plan.python.path}: cannot make an environment: {why}")


def _installs(plan: Plan, partial: Path) -> list[tuple[str, list[str]]]:
    """List pip's calls. auto_gptq is built without CUDA, and against the torch that is there."""
    torch, others = split_torch(plan.pins)
    own = tuple(p for p in others if p.lower().startswith(OWN_BUILD))
    rest = tuple(p for p in others if p not in own)
    pins = partial / "pins.txt"
    pins.write_text("\n".join(plan.pins) + "\n", encoding="utf-8")
    held = ["-c", str(pins)] if plan.pins else []
    calls: list[tuple[str, list[str]]] = []
    if torch:
        calls.append((f"installing {' '.join(torch)}", ["--index-url", plan.torch_index, *torch]))
    if others:
        calls.append(("", [LAST, "wheel"]))
    if rest:
        calls.append((f"installing {len(rest)} packages", [*held, *_lines(partial, "rest.txt", rest)]))
    if own:
        calls.append((f"building {' '.join(own)}", [*held, "--no-build-isolation", *own]))
    calls.append((f"installing {plan.wheel.path.name}", ["--no-index", "--no-deps", str(plan.wheel.path.resolve())]))
    if others:  # last: a package before may have brought a newer one
        calls.append(("", [LAST]))
    return calls


def _lines(partial: Path, name: str, pins: tuple[str, ...]) -> list[str]:
    (partial / name).write_text("\n".join(pins) + "\n", encoding="utf-8")
    return ["-r", str(partial / name)]


def _pip(partial: Path, arguments: list[str]) -> None:
    command = [str(partial / "bin" / "python"), "-I", "-m", "pip", "install", "--disable-pip-version-check",
               "--no-input", *arguments]  # fmt: skip
    ended = run(command, folder=partial, env=_plain())
    if ended.code:
        errors = [line for line in ended.lines if line.lower().startswith("error")]
        why = errors[-1] if errors else ended.lines[-1] if ended.lines else "it printed nothing"
        raise ToolkitError(f"pip install {arguments[-1]}: {why[:300]}", ended.lines, diagnose(ended.lines))


def _plain() -> dict[str, str]:
    """Return this process's environment without what would lead pip to other packages."""
    odd = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV",
           "HF_TOKEN"}  # fmt: skip
    return {**{name: value for name, value in os.environ.items() if name not in odd}, "BUILD_CUDA_EXT": "0"}


def _prove(env: Environment) -> None:
    """Import the toolkit and hold its version against the wheel's. Raises ToolkitError, EnvironmentFault."""
    scratch = env.folder / "proof"
    scratch.mkdir()
    found = convert(env, [], scratch)
    shutil.rmtree(scratch)
    if found != env.toolkit:
        raise EnvironmentFault(f"{env.folder}: holds rkllm-toolkit {found or 'unknown'}, the wheel was {env.toolkit}")
