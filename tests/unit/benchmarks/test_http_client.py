"""The benchmarks' client counts whole answers, by their status; open load leaves when it is due."""

import time
from collections.abc import Iterator

import pytest
import uvloop
from fastapi import FastAPI, Request, Response

from benchmarks.closed_loop import load
from benchmarks.http_client import request_bytes
from benchmarks.open_loop import OpenLoop, Phase
from driftline.runtime.http import BackgroundServer


class Server:
    """Answers each path in its own way, and remembers the bodies."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.app = FastAPI()
        self.app.post("/good")(self.good)
        self.app.post("/busy")(self.busy)
        self.app.post("/slow")(self.slow)

    async def good(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        return Response("x" * 100_000)

    async def busy(self) -> Response:
        return Response("later", 429)

    def slow(self) -> Response:
        time.sleep(0.2)
        return Response("done")


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    behind = Server()
    running = BackgroundServer(behind.app)
    yield behind, f"http://127.0.0.1:{running.start()}"
    running.stop()


def offered(url: str, *, connections: int, rate: float) -> Phase:
    async def run() -> Phase:
        loop = OpenLoop(url, connections, lambda number: request_bytes(url, b"%d" % number))
        await loop.open()
        try:
            return await loop.run("test", rate=rate, seconds=0.5)
        finally:
            loop.close()

    return uvloop.run(run())


def test_every_request_is_sent_once_and_its_answer_counted(server: tuple[Server, str]) -> None:
    behind, url = server
    phase = offered(f"{url}/good", connections=4, rate=200)
    assert phase.offered == phase.good == len(phase.latencies) > 50
    assert sorted(map(int, behind.bodies)) == list(range(phase.offered))
    assert sorted(phase.answered) == list(range(phase.offered))


def test_a_refusal_is_no_good_answer(server: tuple[Server, str]) -> None:
    phase = offered(f"{server[1]}/busy", connections=4, rate=100)
    assert phase.statuses == {429: phase.offered}
    assert (phase.good, phase.share(429), phase.unanswered) == (0, 1.0, 0)


def test_waiting_for_a_connection_is_latency(server: tuple[Server, str]) -> None:
    """One connection, a fifth of a second an answer: the later a request was due, the longer it waited."""
    phase = offered(f"{server[1]}/slow", connections=1, rate=20)
    assert phase.offered > 5
    assert phase.latency(1.0) > 1_000 * 0.2 * (phase.offered - 3)
    assert phase.throughput < phase.offered / phase.seconds


def test_closed_load_fails_where_an_answer_is_not_200(server: tuple[Server, str]) -> None:
    with pytest.raises(RuntimeError, match="429"):
        load(f"{server[1]}/busy", request_bytes(f"{server[1]}/busy", b"{}"), 2)
