"""Asks the simulator many times whether a model loads on a board. Every answer is one init and one destroy of layout
1.3.0, by the library's own functions, in a child process that is started again when the simulated kernel kills it.

    with SimAsk(library) as sim:
        sim.ask(profile_text, model, context=4096).errno
"""

from __future__ import annotations

import ctypes as C
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

LAYOUT = "1.3.0"
RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
ERRNO = re.compile(r"failed to allocate handle, ret: -1, errno: (\d+),")
SIZE = re.compile(r"failed to malloc npu memory, size: (\d+),")


@dataclass(frozen=True)
class Answer:
    """`returned` of rkllm_init, None where the process was killed; `loads`: it gave a handle; `errno` and `size` as
    printed, "" and 0 where they were not; `lines` of both streams as they came, without what stdout still held when
    the process was killed."""

    returned: int | None
    loads: bool
    errno: int | Literal[""]
    size: int
    killed: bool
    lines: tuple[str, ...]


class SimAsk:
    """One child at a time; `started` counts them. Not for several threads."""

    def __init__(self, library: Path, nofile: int | None = None) -> None:
        """`nofile`: the child's limit of open files."""
        self._library, self._nofile = library, nofile
        self._folder = tempfile.TemporaryDirectory(prefix="simask-")
        self._profile = Path(self._folder.name) / "profile.yaml"
        self._said = Path(self._folder.name) / "said"
        self._child: subprocess.Popen[str] | None = None
        self.started = 0

    def ask(
        self,
        profile: str,
        model: Path,
        context: int,
        base_domain: int = 0,
        embed_flash: bool = True,
        keep: bool = False,
    ) -> Answer:
        """`keep`: what loads stays until `free`. Raises RuntimeError if the child ends otherwise than by SIGKILL."""
        self._profile.write_text(profile)
        self._said.write_bytes(b"")
        line = self._answered([str(model), context, base_domain, int(embed_flash), keep])
        lines = tuple(self._said.read_text(errors="replace").splitlines())
        text = "\n".join(lines)
        errno, size = ERRNO.search(text), SIZE.search(text)
        returned, loaded = line.split() if line else ("", "False")
        return Answer(
            returned=int(returned) if line else None,
            loads=loaded == "True",
            errno=int(errno[1]) if errno else "",
            size=int(size[1]) if size else 0,
            killed=not line,
            lines=lines,
        )

    def free(self) -> None:
        """Destroys every handle that was kept."""
        self._answered(None)

    def _answered(self, question: list[object] | None) -> str:
        """The child's line, or "" where it was killed."""
        child = self._running()
        assert child.stdin and child.stdout
        child.stdin.write(json.dumps(question) + "\n")
        child.stdin.flush()
        line = child.stdout.readline()
        if not line and self._end() != -signal.SIGKILL:
            raise RuntimeError(f"the simulator's process ended: {self._said.read_text(errors='replace')[-2000:]}")
        return line

    def _running(self) -> subprocess.Popen[str]:
        if self._child is None:
            command = [sys.executable, "-S", str(Path(__file__)), str(self._library), str(self._said)]
            environment = {**os.environ, "RK_GEMMA_SIM_PROFILE": str(self._profile)}
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            if self._nofile is not None:
                limit = min(self._nofile, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
                resource.prlimit(self._child.pid, resource.RLIMIT_NOFILE, (limit, limit))
            self.started += 1
        return self._child

    def _end(self) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        with child:  # closes the pipes: the child ends with its questions
            pass
        return child.returncode

    def __enter__(self) -> SimAsk:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._folder.cleanup()


def _initialised(lib: Any, model: str, context: int, base_domain: int, embed_flash: int) -> tuple[int, Any]:
    """What rkllm_init returns, and the handle."""
    handle, param = C.c_void_p(), lib.rkllm_createDefaultParam()
    param.model_path = os.fsencode(model)
    param.max_context_len = context
    param.extend_param.base_domain_id = base_domain
    param.extend_param.embed_flash = embed_flash
    return int(lib.rkllm_init(C.byref(handle), C.byref(param), None)), handle


def _loaded(library: str) -> Any:
    sys.path.insert(0, str(RUNTIME))
    from rk_gemma_runtime.librkllm.abi import LAYOUTS

    lib = C.CDLL(library)
    for name, (restype, argtypes) in LAYOUTS[LAYOUT].functions.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = restype, argtypes
    return lib


def _child(library: str, said: str, questions: IO[str], answers: IO[str]) -> None:
    """Everything that the library prints goes to `said`, which the parent empties for each question."""
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(out, stream)
    lib, libc = _loaded(library), C.CDLL(None)
    kept: list[Any] = []
    for line in questions:
        answer = _answer(lib, json.loads(line), kept)
        libc.fflush(None)
        answers.write(answer + "\n")
        answers.flush()


def _answer(lib: Any, question: list[Any] | None, kept: list[Any]) -> str:
    if question is None:
        while kept:
            lib.rkllm_destroy(kept.pop())
        return "free"
    *arguments, keep = question
    returned, handle = _initialised(lib, *arguments)
    if handle and keep:
        kept.append(handle)
    elif handle:
        lib.rkllm_destroy(handle)
    return f"{returned} {bool(handle)}"


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as pipe:
        _child(sys.argv[1], sys.argv[2], sys.stdin, pipe)
