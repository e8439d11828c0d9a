"""One process at a time in rkllm_init: two that load at once may each find the NPU's memory gone."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_S = 120.0  # then it is tried all the same: who has the turn may have been stopped
BEAT_S = 0.02
log = logging.getLogger(__name__)


@contextmanager
def turn_to_init(path: str) -> Iterator[None]:
    """Have the turn while this is open. `path`: the NPU's node, or the library where there is none; it is locked
    (flock) and not changed. Where it cannot be, nobody waits."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        log.debug("%s cannot be locked: %s", path, error)
        yield
        return
    try:
        _wait(descriptor, path)
        yield
    finally:
        with suppress(OSError):  # a process that the library has forked holds the same lock
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _wait(descriptor: int, path: str) -> None:
    until = time.monotonic() + MOST_S
    with suppress(OSError):  # of a file system without locks
        while time.monotonic() < until:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(BEAT_S)
        log.warning("another process has been loading with %s for %g s; not waited for any longer", path, MOST_S)
