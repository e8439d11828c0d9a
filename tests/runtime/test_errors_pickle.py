"""Every error goes to another process whole: pickled, copied, read from a pipe."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import pickle
import pkgutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import rk_gemma_runtime
from rk_gemma_runtime import errors
from rk_gemma_runtime.diagnosis import diagnose
from rk_gemma_runtime.errors import EngineError, NpuError, NpuReason, RkGemmaError, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINES = ("E RKNN: [12:00:00.000] failed to allocate handle, ret: -1, errno: 14, errstr: Bad address", "E rkllm: x")
GIVEN: dict[str, Any] = {
    "message": "it failed: a\nb",
    "reason": NpuReason.IOVA_EXHAUSTED,
    "lines": LINES,
    "remedy": "use less",
    "status": -9,
    "cause": "manifest_mismatch",
}
KEPT = (*GIVEN, "diagnosis", "exit_code", "named", "args")
LEFT_OUT = ("__main__", "probe")  # programs


def kinds(root: type[RkGemmaError] = RkGemmaError) -> Iterator[type[RkGemmaError]]:
    """`root` and what is derived from it, in this package."""
    if root.__module__.startswith("rk_gemma_runtime"):
        yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def import_all() -> None:
    for module in pkgutil.walk_packages(rk_gemma_runtime.__path__, "rk_gemma_runtime."):
        if module.name.rpartition(".")[2] not in LEFT_OUT:
            importlib.import_module(module.name)


import_all()
ALL = sorted(set(kinds()), key=lambda kind: kind.__name__)


def make(kind: type[RkGemmaError]) -> RkGemmaError:
    """One with all that its constructor takes, and a diagnosis where it has one."""
    taken = inspect.signature(kind.__init__).parameters
    error = kind(**{name: value for name, value in GIVEN.items() if name in taken})
    if isinstance(error, EngineError):
        error.diagnosis = diagnose(LINES)
    return error


def told(error: BaseException) -> dict[str, Any]:
    """All that somebody may ask it for."""
    facts = {name: getattr(error, name) for name in KEPT if hasattr(error, name)}
    return {**facts, "text": str(error), "kind": type(error), "notes": getattr(error, "__notes__", [])}


COPIES: dict[str, Callable[[Any], Any]] = {
    **{
        f"pickle {n}": lambda error, n=n: pickle.loads(pickle.dumps(error, n))
        for n in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "twice": lambda error: pickle.loads(pickle.dumps(copy.copy(pickle.loads(pickle.dumps(error))))),
}


def test_the_classes_are_found() -> None:
    public = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, RkGemmaError)]
    assert set(public) <= set(ALL)
    assert len(ALL) >= 14


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_a_copy_tells_the_same(kind: type[RkGemmaError], way: str) -> None:
    error = make(kind)
    twin = COPIES[way](error)
    assert told(twin) == told(error)
    if isinstance(error, NpuError):
        assert (twin.reason, twin.lines, twin.remedy) == (GIVEN["reason"], LINES, error.remedy)
    if isinstance(error, WorkerDied):
        assert (twin.status, twin.lines) == (-9, LINES)


def test_what_was_changed_afterwards_is_kept() -> None:
    """The loader puts what did not help behind the message; the supervisor sharpens the reason."""
    error = NpuError("it failed", NpuReason.INIT_FAILED, LINES)
    error.args = ("it failed; domain 1 did not help",)
    error.reason = NpuReason.NO_RAM
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.reason, twin.remedy) == (str(error), NpuReason.NO_RAM, error.remedy)


PROGRAM = """
import pickle, sys
sys.path.insert(0, {folder!r})
from test_errors_pickle import ALL, make
sys.stdout.buffer.write(pickle.dumps([make(kind) for kind in ALL]))
"""


def test_another_process_hands_them_on() -> None:
    source = PROGRAM.format(folder=os.path.dirname(__file__))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=True, env=env)
    assert [told(error) for error in pickle.loads(done.stdout)] == [told(make(kind)) for kind in ALL]
