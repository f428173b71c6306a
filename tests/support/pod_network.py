"""Creates a network namespace for a pod, in which Services are servers on this machine.

Nothing else is reachable: other names do not resolve, and other ports refuse connections.
"""

import ctypes
import fcntl
import os
import queue
import selectors
import socket
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from devtools.processes import LOOPBACK

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_CHUNK = 1 << 16


class PodNetwork:
    """Serves the ports of Services to processes in `namespace`; a context manager.

    `services` maps a name and port as used by the pod to a port on loopback. Several names may have
    the same port, but not for different servers.
    """

    def __init__(self, services: Mapping[tuple[str, int], int]) -> None:
        self._services = services
        self._accepted: queue.Queue[tuple[socket.socket, int] | None] = queue.Queue()
        self._ready = threading.Event()
        self._wake_receiver, self._wake = socket.socketpair()
        self._failure: OSError | None = None
        # A thread inherits the network of the thread that starts it, so neither of these two may
        # start the other.
        self._inside = threading.Thread(target=self._listen, daemon=True)
        self._outside = threading.Thread(target=self._connect, daemon=True)

    @property
    def namespace(self) -> Path:
        """The file with which a process can enter it (`nsenter --net=...`)."""
        return Path(f"/proc/{os.getpid()}/task/{self._inside.native_id}/ns/net")

    @property
    def hosts(self) -> str:
        """The text of /etc/hosts in the pod."""
        names = sorted({name for name, _ in self._services})
        return "".join(f"{LOOPBACK} {name}\n" for name in ["localhost", *names])

    def __enter__(self) -> Self:
        self._outside.start()
        self._inside.start()
        self._ready.wait(30)
        if self._failure:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.close()
        self._accepted.put(None)
        self._inside.join(30)
        self._outside.join(30)

    def _listen(self) -> None:
        try:
            _enter_new_network()
            ports = {port: upstream for (_, port), upstream in self._services.items()}
            listeners = {
                socket.create_server((LOOPBACK, port)): upstream for port, upstream in ports.items()
            }
        except OSError as error:
            self._failure = error
            return
        finally:
            self._ready.set()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_receiver, selectors.EVENT_READ)
            for listener in listeners:
                selector.register(listener, selectors.EVENT_READ)
            while self._wake_receiver not in (found := [k.fileobj for k, _ in selector.select()]):
                for listener, upstream in listeners.items():
                    if listener in found:
                        self._accepted.put((listener.accept()[0], upstream))
        for listener in listeners:
            listener.close()

    def _connect(self) -> None:
        while accepted := self._accepted.get():
            client, port = accepted
            try:
                upstream = socket.create_connection((LOOPBACK, port))
            except OSError:
                client.close()
                continue
            for one, other in ((client, upstream), (upstream, client)):
                threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _enter_new_network() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot create a network namespace: run as root")
    with socket.socket() as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(_CHUNK):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            end.close()
