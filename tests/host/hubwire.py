"""Sockets of the test hub: one listener, its threads, and how an answer is put on the wire, or only part of it."""

from __future__ import annotations

import array
import contextlib
import fcntl
import http.server
import socket
import socketserver
import struct
import termios
import threading
import time
import traceback
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from hubreply import Asked, Reply

if TYPE_CHECKING:
    from collections.abc import Callable


class Listener(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """One port on this machine. `close` ends every connection and joins every thread."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, host: str, answer: Callable[[Asked], Reply], mistakes: list[str]) -> None:
        self.answer = answer
        self.mistakes = mistakes
        self.closing = threading.Event()
        self.resets: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1" if host == "localhost" else host, 0), _Handler)
        self.url = f"http://{host}:{self.server_address[1]}"
        self._thread = threading.Thread(target=self._accept, name=f"hub {self.url}")
        self._thread.start()

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's full name, which may ask a name server."""
        socketserver.TCPServer.server_bind(self)

    def close(self) -> None:
        """Stop accepting, break what is under way, and wait for the threads."""
        self.closing.set()
        for each in (self.socket, *self._connections()):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for late in self._connections():
            with contextlib.suppress(OSError):
                late.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                request, address = self.get_request()
            except OSError:
                continue
            with self._lock:
                self._open.add(request)
            self.process_request(request, address)

    def _connections(self) -> list[socket.socket]:
        with self._lock:
            return list(self._open)

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        with self._lock:
            self._open.discard(request)
        if request not in self.resets:  # the usual way sends a FIN before anything else
            super().shutdown_request(request)
            return
        self.resets.discard(request)
        self.close_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep what is a mistake of the server; a client that hung up is not one."""
        self.mistakes.append(traceback.format_exc())


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        asked = Asked(self.command, path, parse_qs(query, keep_blank_values=True), headers, body)
        self._send(self.server.answer(asked))

    do_HEAD = do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests read `requests`."""

    def _send(self, reply: Reply) -> None:
        self.close_connection = reply.cut is not None or reply.length_error != 0
        self.send_response(reply.status)
        length = {"Content-Length": str(reply.length + reply.length_error)}
        framing = {"Transfer-Encoding": "chunked"} if reply.chunked else length
        for name, value in {**framing, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(reply)

    def _send_body(self, reply: Reply) -> None:
        left = reply.length if reply.cut is None else min(reply.cut[0], reply.length)
        sent = 0
        self._wait(reply, sent)
        for block in reply.content.read(reply.start, reply.start + left):
            for piece in _pieces(block, sent, reply):
                if reply.bytes_per_second is not None:
                    self.server.closing.wait(len(piece) / reply.bytes_per_second)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if reply.chunked else piece)
                sent += len(piece)
                self._wait(reply, sent)
        if reply.cut is not None:
            self._cut(reply.cut[1])
        if reply.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _wait(self, reply: Reply, sent: int) -> None:
        if reply.pause is not None and sent == reply.pause.after:
            reply.pause.reached.set()
            while not (self.server.closing.is_set() or reply.pause.go.wait(0.05)):
                pass
        if self.server.closing.is_set():
            raise ConnectionAbortedError

    def _cut(self, how: str) -> None:
        """End the connection; a reset waits until the peer has every byte, because it would throw the rest away."""
        if how == "rst":
            waiting = array.array("i", [1])
            until = time.monotonic() + 30
            while waiting[0] and time.monotonic() < until and not self.server.closing.wait(0.0005):
                fcntl.ioctl(self.connection.fileno(), termios.TIOCOUTQ, waiting)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.server.resets.add(self.connection)
        raise ConnectionAbortedError


def _pieces(block: bytes, sent: int, reply: Reply) -> list[bytes]:
    """Split a block where the server is to pause, and into small pieces where it is to be slow."""
    edge = reply.pause.after - sent if reply.pause is not None else 0
    parts = [block[:edge], block[edge:]] if 0 < edge < len(block) else [block]
    if reply.bytes_per_second is None:
        return [part for part in parts if part]
    step = max(1, int(reply.bytes_per_second / 50))
    return [part[at : at + step] for part in parts for at in range(0, len(part), step)]
