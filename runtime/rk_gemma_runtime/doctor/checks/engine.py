"""The CPU engine: can it be loaded, and was it built for this CPU?"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.findings import CPU, ERROR, OK, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readers.cpu import CpuEngine
    from rk_gemma_runtime.doctor.readings import Readings

INSTALL = "pip install --force-reinstall xllamacpp"
# A build from source is for the CPU that it is built on; it needs Rust too (xorbitsai/xllamacpp, README).
REBUILD = (
    "sudo apt install build-essential cmake git python3-dev cargo && git clone --recursive"
    " https://github.com/xorbitsai/xllamacpp && pip install --force-reinstall ./xllamacpp"
)
# Of another engine on the same cores, before and after (huggingface/candle, pull request 3395).
GAIN = "about 1.7 times: Q8_0 matrices of another engine took 108 ms in place of 190 on an RK3588's big cores"
ARM = "aarch64"


def check(r: Readings) -> Iterator[Finding]:
    """Check llama.cpp's build: one for another CPU cannot be loaded, one for any CPU is slow."""
    engine = r.cpu.engine
    if engine is None:
        yield _elsewhere()
    elif engine.fault:
        title = "the CPU engine cannot be loaded"
        cause = "illegal_instruction" if "signal 4" in engine.fault else ""
        yield Finding("cpu_engine", ERROR, title, (f"xllamacpp: {engine.fault}",), INSTALL, cause, (CPU,))
    else:
        yield Finding("cpu_engine", OK, f"CPU engine: xllamacpp {engine.version}", (_switches(engine),))
        yield from _build(r, engine)


def _elsewhere() -> Finding:
    """Another board's files: its Python packages are not looked at, this installation stands for them."""
    if find_spec("xllamacpp") is None:
        title = "the CPU engine is not installed here"
        return Finding("cpu_engine", ERROR, title, ("xllamacpp: not found",), INSTALL, "", (CPU,))
    return Finding("cpu_engine", OK, "CPU engine: taken to be installed as here", ("xllamacpp: found here",))


def _build(r: Readings, engine: CpuEngine) -> Iterator[Finding]:
    """Only where a switch is for sure: llama.cpp names those that it was compiled with."""
    features = r.cpu.features
    if engine.machine != ARM or features is None or engine.system.get("DOTPROD"):
        return
    if "asimddp" in features and "NEON" in engine.system:
        title = "the CPU engine was built without the CPU's dot-product instructions"
        evidence = ("/proc/cpuinfo: Features asimddp", _switches(engine), f"what a build with them gains: {GAIN}")
        yield Finding("cpu_engine_slow", WARNING, title, evidence, REBUILD)


def _switches(engine: CpuEngine) -> str:
    names = [name for name, on in sorted(engine.system.items()) if on]
    return f"llama.cpp: {', '.join(names) or 'names no instruction sets'}"
