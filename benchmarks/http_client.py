"""A client that costs little beside what it measures: requests made beforehand, answers read for their status only."""

import asyncio
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"

Answered = Callable[["Connection", int], None]


def request_bytes(url: str, body: bytes | None) -> bytes:
    """Return a POST of JSON as it goes over the wire; without a body a GET."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    if body is None:
        return f"GET {target} HTTP/1.1\r\nhost: {parts.netloc}\r\n\r\n".encode()
    head = (
        f"POST {target} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """A kept connection with at most one request under way. ``answered`` is called with each answer's status; 0: lost."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._asked = False

    @classmethod
    async def open(cls, url: str, answered: Answered) -> "Connection":
        """Connect to the server of a URL."""
        parts = urlsplit(url)
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: cls(answered), parts.hostname or "127.0.0.1", parts.port or 80
        )
        return connection

    def ask(self, request: bytes) -> None:
        """Send a request; its answer comes through ``answered``."""
        self._asked = True
        if self._transport is None or self._transport.is_closing():
            asyncio.get_running_loop().call_soon(self._settle, 0)
            return
        self._transport.write(request)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read an answer once all of it is there."""
        self._buffer += data
        end = self._buffer.find(_END)
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(_LENGTH)
        length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) - end - len(_END) < length:
            return
        status = int(self._buffer[9:12])
        self._buffer = b""
        self._settle(status)

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell that the answer will not come."""
        self._transport = None
        self._settle(0)

    def _settle(self, status: int) -> None:
        if self._asked:
            self._asked = False
            self._answered(self, status)
