"""A line between a bank and its server that can be cut: a small TCP proxy on loopback."""

import socket
import threading
from contextlib import suppress

from fedsys.flower.processes.superlink import LOOPBACK


class Proxy:
    """Passes bytes on to `port`, until it is cut; use it in a `with`.

    While it is cut nothing passes and nothing is closed, as where a cable is pulled: both sides
    see silence. New connections are taken and hear nothing.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = threading.Event()
        self._open.set()
        self._listening = socket.create_server((LOOPBACK, 0))
        self._sockets: list[socket.socket] = []
        self.port = int(self._listening.getsockname()[1])

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listening.close()
        for one in self._sockets:
            with suppress(OSError):
                one.close()
        self._open.set()

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        """Lets bytes pass again. What was open is closed, as after a long silence."""
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()
        self._open.set()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            self._sockets.append(near)
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._open.wait()
        try:
            far = socket.create_connection((LOOPBACK, self._to), 10.0)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        self._sockets.append(far)
        for one, other in [(near, far), (far, near)]:
            threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                self._open.wait()
                other.sendall(data)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
