"""Entry point of a worker process; started by the supervisor only."""

from __future__ import annotations

import logging
import os
import socket
import sys

from rk_gemma_runtime.worker import life
from rk_gemma_runtime.worker.loop import Worker


def main() -> None:
    """Serve the socket, until it closes. Arguments: its descriptor, the lifeline's, the parent's process id, and how
    many open files an engine may need."""
    number, lifeline, parent, files = map(int, sys.argv[1:])
    # The library may close descriptor 2, and the next file it opens would take the number, and our lines.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    logging.basicConfig(format="%(levelname).1s rk-gemma: %(message)s", level=logging.WARNING)
    life.begin(lifeline)
    sock = socket.socket(fileno=number)
    sock.set_inheritable(False)  # a program that the library starts would hold it open after our death
    Worker(sock, parent, files).serve()


if __name__ == "__main__":
    main()
