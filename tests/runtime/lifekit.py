"""Programs that use the runtime, as processes of their own: started, read line by line, ended with all below them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
from runtimekit import ROOT, alive, descendants, patient, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

WORKER = "rk_gemma_runtime.worker"
# `gemma(backend)` opens, `ask(gemma)` answers FIRST, `tell(...)` prints one line of JSON for the test. What a program
# does at its top, before anything of the runtime is imported, goes before it.
PRELUDE = """
import gc, json, os, signal, sys, time
from rk_gemma_runtime import Assistant

QUESTION = "What is errno 14?"
OUT = int(os.environ.get("LIFE_OUT", "1"))

def gemma(backend="npu", **options):
    options = {"librkllmrt": os.environ["LIFE_LIBRARY"], "threads": 1, **options}
    return Assistant.open(os.environ["LIFE_BUNDLE"], backend=backend, **options)

def begin(g):
    return g.chat([{"role": "user", "content": QUESTION}], temperature=0)

def ask(g):
    list(begin(g))
    return list(g.last.ids)

def kill_worker(g):
    pid = g.worker_pid
    os.kill(pid, signal.SIGKILL)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:  # SIGCHLD is ignored: it is gone
        pass

def held(wanted=None):
    # Descriptors and threads. One that has been called off is still seen for a moment.
    for _ in range(500):
        gc.collect()
        now = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
        if wanted in (None, now):
            break
        time.sleep(0.01)
    return now

def tell(*words):
    os.write(OUT, json.dumps(words).encode() + b"\\n")

def error(call):
    try:
        call()
    except BaseException as e:
        return [type(e).__name__, str(e)]
    return None
"""


class Program:
    """A program in flight, and every process that was ever seen below it."""

    def __init__(self, source: str, env: Mapping[str, str], folder: Path, first: str = "", **options: Any) -> None:
        self._file = folder / f"program{len(list(folder.glob('program*')))}.py"
        self._file.write_text(first + PRELUDE + source)
        self.child = subprocess.Popen(
            [sys.executable, str(self._file)],
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **options,
        )
        self.seen: set[int] = set()
        self._text = b""

    @property
    def pid(self) -> int:
        return self.child.pid

    def line(self, seconds: float = 12) -> list[Any]:
        """What it told next."""
        assert self.child.stdout is not None
        while b"\n" not in self._text:
            ready, _, _ = select.select([self.child.stdout], [], [], patient(seconds))
            data = os.read(self.child.stdout.fileno(), 1 << 16) if ready else b""
            if not data:
                raise AssertionError(f"no line{'' if ready else ' in time'}; {self.stop()[-2000:]}")
            self._text += data
        line, _, self._text = self._text.partition(b"\n")
        told: list[Any] = json.loads(line)
        return told

    def end(self, seconds: float = 20) -> tuple[int, str]:
        """Exit status and stderr."""
        try:
            _, err = self.child.communicate(timeout=patient(seconds))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.stop()[-2000:]}") from None
        return self.child.returncode, err.decode()

    def workers(self) -> list[int]:
        """Workers that run below it now."""
        found = []
        for process in descendants(self.pid):
            with suppress(psutil.Error):
                if any(WORKER in word for word in process.cmdline()):
                    found.append(process.pid)
        self.seen |= set(found)
        return found

    def worker(self) -> int:
        """The worker, as soon as there is one."""
        wait_until(lambda: self.workers() != [], "the worker is there")
        return self.workers()[0]

    def kill(self) -> None:
        """As the kernel does: no handler runs."""
        self.child.kill()
        self.child.wait()

    def stop(self) -> str:
        """End it, what is below it, and what was; what it has said on stderr."""
        self.seen |= {process.pid for process in descendants(self.pid)}
        for pid in (self.pid, *self.seen):
            if alive(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        _, err = self.child.communicate()
        return err.decode() if err else ""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This tree's packages; no library but the test's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RK_GEMMA_", "RKLLM_"))}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "runtime")])
    return {**kept, "PYTHONPATH": paths, **extra}


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def gone_within(pid: int, seconds: float) -> None:
    """Fail unless the process ends in time."""
    wait_until(lambda: not alive(pid), f"{pid} has left", seconds)


def result(start: Callable[..., Program], source: str, **options: Any) -> list[Any]:
    """The only line of a program that ends well and says nothing on stderr."""
    program = start(source, **options)
    told = program.line()
    code, err = program.end()
    assert (code, err) == (0, "")
    return told
