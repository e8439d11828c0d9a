"""Entry point of a worker process; started by the supervisor only."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

from rk_gemma_runtime.worker.loop import Worker, no_core_dump


def main() -> None:
    """Serve the socket whose descriptor number is the only argument, until it closes."""
    # Ctrl-C goes to the whole process group; stopping an answer is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The library may close descriptor 2, and the next file it opens would take the number, and our lines.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    logging.basicConfig(format="%(levelname).1s rk-gemma: %(message)s", level=logging.WARNING)
    no_core_dump()
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)  # a program that the library starts would hold it open after our death
    Worker(sock).serve()


if __name__ == "__main__":
    main()
