"""HTTP predictions beside a FastAPI route that returns a constant, under the same load."""

import asyncio
import json
import statistics
import sys
import time

import uvloop

from benchmarks import events, peers
from benchmarks.comparison import Comparison
from benchmarks.data_plane import Bench
from benchmarks.http_client import Connection, request_bytes

REQUESTS = 6_000
_PREDICT = "/v1/models/failure/predictions"


def comparisons(bench: Bench) -> list[Comparison]:
    """Return the lines: requests a second at 1 and 16 connections, and latency at one."""
    addresses: dict[str, str] = {}

    def address(name: str) -> str:
        if name not in addresses:
            addresses[name] = bench.service("predictor") if name == "predictor" else constant_route(bench)
        return addresses[name]

    def ours(connections: int) -> list[float]:
        return uvloop.run(load(address("predictor") + _PREDICT, connections))

    def theirs(connections: int) -> list[float]:
        return uvloop.run(load(address("constant") + _PREDICT, connections))

    lines = [
        Comparison(
            name=f"HTTP predictions, {connections} connections / constant FastAPI route",
            unit="requests/s",
            ours=lambda connections=connections: ours(connections)[0],  # type: ignore[misc]
            theirs=lambda connections=connections: theirs(connections)[0],  # type: ignore[misc]
            note="the client shares the two cores",
        )
        for connections in (1, 16, 64)
    ]
    for name, place in (("median", 1), ("99th percentile", 2)):
        lines.append(
            Comparison(
                name=f"HTTP latency, {name}, one connection / constant FastAPI route",
                unit="ms",
                better="lower",
                ours=lambda place=place: ours(1)[place] * 1e3,  # type: ignore[misc]
                theirs=lambda place=place: theirs(1)[place] * 1e3,  # type: ignore[misc]
                note="ours includes the broker's acknowledgement of the log record",
            )
        )
    return lines


def constant_route(bench: Bench) -> str:
    """Start the peer: a FastAPI route that takes the same body and returns a constant."""
    environment = {"BENCH_STATE": str(bench.folder), "PATH": "/usr/bin:/bin"}
    return bench.launch([sys.executable, "-m", "benchmarks.constant_route"], environment, "constant-route")


async def load(url: str, connections: int) -> list[float]:
    """Ask over some connections, each one request at a time.

    Returns [requests a second, median seconds, 99th percentile seconds].
    """
    body = {
        "entities": {"sensor": "sensor-00042"},
        "inputs": {"load": 5.0},
        "event_time": events.START_US + 1_000_000_000,
    }
    request = request_bytes(url, json.dumps(body).encode())
    waits: list[float] = []
    for count in (max(20, connections), REQUESTS):  # the first are not measured
        waits.clear()
        begun = time.perf_counter()
        await _ask(url, request, connections, count, waits)
        seconds = time.perf_counter() - begun
    return [len(waits) / seconds, statistics.median(waits), peers.percentile(waits, 0.99)]


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
