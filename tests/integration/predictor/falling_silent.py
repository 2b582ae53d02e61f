"""A way to a TCP server that can fall silent, or be gone, and come back: what a slow or lost network does."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class FallingSilent:
    """Forwards connections to a server on this machine, until told otherwise."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._talking = threading.Event()
        self._talking.set()
        self._there = True
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self) -> None:
        """Take bytes and pass nothing on, to either side; connections stay."""
        self._talking.clear()

    def go(self) -> None:
        """Cut all connections, and every new one."""
        self._there = False
        self._cut()

    def come_back(self) -> None:
        """Pass on what was held back, and what comes."""
        self._there = True
        self._talking.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._there = False
        self._talking.set()
        self._listening.close()
        self._cut()

    def _cut(self) -> None:
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if not self._there:
                client.close()
                continue
            server = socket.create_connection(self._target)
            with self._lock:
                self._open += [client, server]
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                self._talking.wait()
                other.sendall(data)
            other.shutdown(socket.SHUT_RDWR)
