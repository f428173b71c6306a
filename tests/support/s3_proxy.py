"""A proxy for an S3 server that counts requests and can hold or block any of them.

It does not change requests, so signatures stay valid. A blocked request never reaches the server.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from devtools.processes import LOOPBACK

_CHUNK = 65536


@dataclass(frozen=True)
class S3Request:
    """One request: its number, counted from 1, its method, and its path with query."""

    number: int
    method: str
    path: str


Gate = Callable[[S3Request], bool]
"""Called before a request is forwarded, and may wait; False closes the connection instead."""


def let_through(request: S3Request) -> bool:
    """Block nothing."""
    del request
    return True


class S3Proxy:
    """Listens on loopback and forwards to `upstream`; a context manager that closes it."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or LOOPBACK, parts.port or 80)
        self._listener = socket.create_server((LOOPBACK, 0))
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.requests: list[S3Request] = []
        self.gate: Gate = let_through
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The endpoint for the client."""
        return f"http://{LOOPBACK}:{self._listener.getsockname()[1]}"

    def begin(self, gate: Gate = let_through) -> None:
        """Restart counting from 1, with this gate."""
        with self._lock:
            self.requests = []
            self.gate = gate

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in [self._listener, *self._sockets]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
            except OSError:
                return
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            for target, source, sink in (
                (self._requests, client, server),
                (self._answers, server, client),
            ):
                threading.Thread(target=target, args=(source, sink), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError, ValueError), client.makefile("rb") as stream:
            while head := _head(stream.readline):
                if not self._passes(head):
                    break
                server.sendall(head)
                left = _content_length(head)
                while left:
                    chunk = stream.read1(min(left, _CHUNK))
                    if not chunk:
                        break
                    server.sendall(chunk)
                    left -= len(chunk)
        _end(client, server)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while chunk := server.recv(_CHUNK):
                client.sendall(chunk)
        _end(client, server)

    def _passes(self, head: bytes) -> bool:
        method, path, _ = head.split(b" ", 2)
        with self._lock:
            request = S3Request(len(self.requests) + 1, method.decode(), path.decode())
            self.requests.append(request)
            gate = self.gate
        return gate(request)


def _head(read_line: Callable[[], bytes]) -> bytes:
    lines = []
    while line := read_line():
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)
    return b""


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
