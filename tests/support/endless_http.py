"""An HTTP server whose responses do not end, or come too slowly to end in time."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from devtools.processes import LOOPBACK

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


class EndlessServer(socketserver.ThreadingTCPServer):
    """Sends `head`, and then `part` again and again until the client leaves."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, head: bytes, part: bytes, pause: float) -> None:
        """Listen; `pause` is the time between two parts, in seconds."""
        super().__init__((LOOPBACK, 0), _Handler)
        self.head, self.part, self.pause = head, part, pause
        self.sent = 0
        self.left = threading.Event()
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://{LOOPBACK}:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Log nothing: clients disconnect."""


class _Handler(socketserver.BaseRequestHandler):
    server: EndlessServer

    def handle(self) -> None:
        server = self.server
        try:
            self.request.recv(65536)
            self.request.sendall(server.head)
            while not server.stopped.wait(server.pause):
                self.request.sendall(server.part)
                server.sent += len(server.part)
        except OSError:
            server.left.set()


@contextmanager
def endless(head: bytes, part: bytes, *, pause: float = 0) -> Iterator[EndlessServer]:
    """Run such a server."""
    with EndlessServer(head, part, pause) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.stopped.set()
        server.shutdown()
        thread.join()
