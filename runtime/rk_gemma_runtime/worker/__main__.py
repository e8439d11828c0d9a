"""Entry point of a worker process; started by the supervisor only."""

from __future__ import annotations

import logging
import signal
import socket
import sys

from rk_gemma_runtime.worker.loop import Worker


def main() -> None:
    """Serve the socket whose descriptor number is the only argument, until it closes."""
    # Ctrl-C goes to the whole process group; stopping an answer is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(format="%(levelname).1s rk-gemma: %(message)s", level=logging.WARNING)
    Worker(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    main()
