"""An answer's head and body are one write; whatever else is written arrives whole and in order."""

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from driftline.runtime.http import BackgroundServer
from driftline.runtime.http_protocol import GatheringTransport


class Wire:
    """A transport that notes each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def writelines(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def play(turns: list[list[bytes]], *, close: bool = False) -> Wire:
    """Write some data per turn of an event loop, close if asked, and return what went out."""
    wire = Wire()

    async def story() -> None:
        transport = GatheringTransport(wire, asyncio.get_running_loop())  # type: ignore[arg-type]
        for turn in turns:
            for data in turn:
                transport.write(data)
            await asyncio.sleep(0)
        if close:
            transport.write(b"last")
            transport.close()
            assert transport.is_closing()

    asyncio.run(story())
    return wire


def test_head_and_body_are_one_write() -> None:
    assert play([[b"head", b"body"], [b"head", b"body"]]).writes == [b"headbody"] * 2


def test_what_stands_alone_is_written_at_the_end_of_the_turn() -> None:
    assert play([[b"100 continue"], [b"head", b"body", b"more"]]).writes == [
        b"100 continue",
        b"headbody",
        b"more",
    ]


def test_what_is_held_is_written_before_the_connection_is_closed() -> None:
    wire = play([], close=True)
    assert (wire.writes, wire.closed) == ([b"last"], True)


@given(st.lists(st.lists(st.binary(max_size=3), max_size=5), max_size=5))
def test_nothing_is_lost_or_moved(turns: list[list[bytes]]) -> None:
    assert b"".join(play(turns).writes) == b"".join(data for turn in turns for data in turn)


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
def test_a_real_server_answers_whole(size: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answers: dict[str, Any] = {
            "/whole": PlainTextResponse("x" * size),
            "/pieces": StreamingResponse(iter(["x" * (size // 2), "x" * (size - size // 2)])),
        }
        await answers[scope["path"]](scope, receive, send)

    server = BackgroundServer(app)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.start()}", timeout=30) as client:
        try:
            for _ in range(3):  # over one connection
                for path in ("/whole", "/pieces"):
                    assert client.get(path).text == "x" * size
        finally:
            server.stop()
