"""While an assistant is open and answering, nobody can connect to it."""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING

import psutil
import pytest
from runtimekit import scratch_left

from rk_gemma_runtime.jobs import Request, Sampling
from rk_gemma_runtime.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma_runtime.assistant import Assistant

pytestmark = pytest.mark.board


def doors() -> list[str]:
    """Open ports, and Unix sockets with a name, of this process and all below it."""
    me = psutil.Process()
    found = []
    for process in (me, *me.children(recursive=True)):
        found += [f"{process.pid} {c.laddr}" for c in process.net_connections("inet")]
        found += [
            f"{process.pid} {c.laddr}" for c in process.net_connections("unix") if c.laddr and _listens(c.laddr)
        ]
    return found


def _listens(name: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(name.replace("@", "\0", 1) if name.startswith("@") else name)
        except OSError:
            return False
        return True


def sockets_in(folder: Path) -> list[str]:
    return [str(p) for p in folder.rglob("*") if stat.S_ISSOCK(p.lstat().st_mode)]


@pytest.mark.parametrize("backend", ["npu", "cpu"])
def test_nothing_listens(
    backend: str,
    tiny_bundle: Path,
    assistant: Callable[..., Assistant],
    profile: Callable[..., Path],
    scratch: Path,
) -> None:
    before = doors()
    profile(token_delay_us=1000)
    gemma = assistant(tiny_bundle, backend)
    assert doors() == before
    assert sockets_in(scratch) == []
    for folder in scratch.glob("rk-gemma-*"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    request = Request((2, 5, 9), 20, (1,), Sampling(0.0))
    for count, _ in enumerate(gemma.model._backends.generate(request, Stop())):
        if count % 5 == 0:
            assert doors() == before
            assert sockets_in(scratch) == []
    gemma.close()
    assert doors() == before
    assert scratch_left(scratch) == []


def test_the_look_at_doors_sees_them(tmp_path: Path) -> None:
    before = doors()
    with socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX) as named:
        named.bind(str(tmp_path / "s"))
        named.listen()
        assert len(doors()) == len(before) + 2
        assert sockets_in(tmp_path) == [str(tmp_path / "s")]


def test_a_worker_leaves_no_core_dump(tiny_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    """It would hold the prompt. One byte is what also keeps the kernel from piping it to a handler."""
    gemma = assistant(tiny_bundle, "npu")
    limits = psutil.Process(gemma.worker_pid).rlimit(psutil.RLIMIT_CORE)
    assert max(limits) <= 1
