"""The benchmark's client counts whole answers and takes no other for one."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse

from benchmarks.http_load import send_load
from driftline.runtime.http import BackgroundServer

ASKED: list[bytes] = []


@pytest.fixture
def address() -> Iterator[str]:
    app = FastAPI()
    ASKED.clear()

    @app.post("/good")
    async def good(request: Request) -> PlainTextResponse:
        ASKED.append(await request.body())
        return PlainTextResponse("x" * 100_000)

    server = BackgroundServer(app)
    yield f"http://127.0.0.1:{server.start()}"
    server.stop()


def test_every_answer_is_awaited(address: str) -> None:
    waits, seconds = send_load(f"{address}/good", b'{"a": 1}', connections=4, requests=40)
    assert len(waits) == 40
    assert 0 < max(waits) <= seconds
    assert ASKED == [b'{"a": 1}'] * (20 + 40)  # the first twenty warm up


def test_an_answer_that_was_not_expected_ends_the_load(address: str) -> None:
    with pytest.raises(RuntimeError, match="404"):
        send_load(f"{address}/nowhere", b"{}", connections=2, requests=4)
