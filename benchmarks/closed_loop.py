"""Closed-loop load: some connections, each with one request at a time."""

import asyncio
import statistics
import time
from dataclasses import dataclass

import uvloop

from benchmarks import peers
from benchmarks.http_client import Connection

REQUESTS = 6_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What came of the load: requests a second, and seconds that an answer took."""

    rate: float
    median: float
    p99: float


def load(url: str, request: bytes, connections: int, requests: int = REQUESTS) -> Answers:
    """Send the same request over and over, the first few unmeasured; RuntimeError for any answer but 200."""
    return uvloop.run(_load(url, request, connections, requests))


async def _load(url: str, request: bytes, connections: int, requests: int) -> Answers:
    waits: list[float] = []
    for count in (max(20, connections), requests):  # the first are not measured
        waits.clear()
        begun = time.perf_counter()
        await _ask(url, request, connections, count, waits)
        seconds = time.perf_counter() - begun
    return Answers(
        rate=len(waits) / seconds, median=statistics.median(waits), p99=peers.percentile(waits, 0.99)
    )


async def _ask(url: str, request: bytes, connections: int, count: int, waits: list[float]) -> None:
    over = asyncio.get_running_loop().create_future()
    begun: dict[Connection, float] = {}
    left = [count - connections]

    def answered(connection: Connection, status: int) -> None:
        if over.done():
            return
        waits.append(time.perf_counter() - begun[connection])
        if status != 200:
            over.set_exception(RuntimeError(f"{url} answered {status}"))
        elif left[0] > 0:
            left[0] -= 1
            begun[connection] = time.perf_counter()
            connection.ask(request)
        elif len(waits) == count:
            over.set_result(None)

    opened = [await Connection.open(url, answered) for _ in range(connections)]
    try:
        for connection in opened:
            begun[connection] = time.perf_counter()
            connection.ask(request)
        await over
    finally:
        for connection in opened:
            connection.close()
        await asyncio.sleep(0)  # until they are
