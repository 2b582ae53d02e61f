"""An application behind its real HTTP server, and requests to it byte by byte."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import NamedTuple

from fastapi import FastAPI

from driftline.runtime.http import BackgroundServer


class Answer(NamedTuple):
    """What a server answered. The headers are sorted and have no date."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@contextmanager
def served(app: FastAPI) -> Iterator[int]:
    """Serve an application; yields the port."""
    server = BackgroundServer(app)
    try:
        yield server.start()
    finally:
        server.stop()


def request_bytes(method: str, target: bytes, *lines: bytes, body: bytes = b"") -> bytes:
    """Return a request with some header lines more."""
    head = [method.encode() + b" " + target + b" HTTP/1.1", b"host: test", *lines]
    if body:
        head.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*head, b"", b""]) + body


def fetch(port: int, method: str, target: bytes, *lines: bytes, body: bytes = b"") -> Answer:
    """Ask once, over a connection of its own."""
    return exchange(port, [request_bytes(method, target, *lines, body=body)], [method])[0]


def exchange(port: int, pieces: Sequence[bytes], methods: Sequence[str]) -> list[Answer]:
    """Send pieces over one connection and read an answer for each method."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        return read_answers(connection, methods)


def read_answers(connection: socket.socket, methods: Sequence[str]) -> list[Answer]:
    """Read an answer for each method that was asked."""
    stream = connection.makefile("rb")
    answers = []
    for method in methods:
        answer = HTTPResponse(_Open(stream), method=method)  # type: ignore[arg-type]
        answer.begin()
        body = answer.read()
        headers = sorted(one for one in answer.getheaders() if one[0].lower() != "date")
        answers.append(Answer(answer.status, headers, body))
    return answers


class _Open:
    """A connection's stream for ``HTTPResponse``, which would close it after an answer."""

    def __init__(self, stream: object) -> None:
        self._stream = stream

    def makefile(self, _mode: str) -> "_Open":
        return self

    def close(self) -> None:
        return

    def flush(self) -> None:
        return

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
