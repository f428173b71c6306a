"""A proxy that makes a server seem far away: every byte arrives half a round trip later.

It delays bytes, not requests, so a large object takes hardly longer, as on a fast link.
"""

import asyncio
import contextlib
import threading
from typing import Self
from urllib.parse import urlsplit

from devtools.processes import LOOPBACK

_READ = 256 * 1024


class Distance:
    """Listens on loopback and forwards to `upstream`; a context manager that ends it."""

    def __init__(self, upstream: str, *, round_trip: float) -> None:
        """`round_trip` is in seconds."""
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or LOOPBACK, parts.port or 80)
        self._delay = round_trip / 2
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._port = 0

    @property
    def url(self) -> str:
        """The endpoint for the client."""
        return f"http://{LOOPBACK}:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        start = asyncio.start_server(self._serve, LOOPBACK, 0)
        server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self._port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        server, request = await asyncio.open_connection(*self._upstream)
        await asyncio.gather(self._forward(client, request), self._forward(server, answer))

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Forward until the source ends: read at once, write when each chunk is due."""
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def write() -> None:
            while chunk := await due.get():
                await asyncio.sleep(chunk[0] - self._loop.time())
                if not chunk[1]:
                    return
                sink.write(chunk[1])
                await sink.drain()

        writer = asyncio.create_task(write())
        with contextlib.suppress(OSError):
            while body := await source.read(_READ):
                due.put_nowait((self._loop.time() + self._delay, body))
        due.put_nowait((self._loop.time() + self._delay, b""))
        with contextlib.suppress(OSError):
            await writer
        sink.close()
