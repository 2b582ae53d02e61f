"""HTTP predictions beside a FastAPI route that returns a constant, under the same load."""

import asyncio
import json
import statistics
import sys
import time

import httpx

from benchmarks import events, peers
from benchmarks.comparison import Comparison
from benchmarks.data_plane import Bench

REQUESTS = 1_500
_PREDICT = "/v1/models/failure/predictions"


def comparisons(bench: Bench) -> list[Comparison]:
    """Return the lines: requests a second at 1 and 16 connections, and latency at one."""
    addresses: dict[str, str] = {}

    def address(name: str) -> str:
        if name not in addresses:
            addresses[name] = bench.service("predictor") if name == "predictor" else constant_route(bench)
        return addresses[name]

    def ours(connections: int) -> list[float]:
        return asyncio.run(load(address("predictor") + _PREDICT, connections))

    def theirs(connections: int) -> list[float]:
        return asyncio.run(load(address("constant") + _PREDICT, connections))

    lines = [
        Comparison(
            name=f"HTTP predictions, {connections} connections / constant FastAPI route",
            unit="requests/s",
            ours=lambda connections=connections: ours(connections)[0],  # type: ignore[misc]
            theirs=lambda connections=connections: theirs(connections)[0],  # type: ignore[misc]
            note="the client shares the two cores",
        )
        for connections in (1, 16)
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
    """Send requests over some connections; return [requests a second, median seconds, 99th percentile seconds]."""
    waits: list[float] = []
    body = {
        "entities": {"sensor": "sensor-00042"},
        "inputs": {"load": 5.0},
        "event_time": events.START_US + 1_000_000_000,
    }
    content = json.dumps(body).encode()
    headers = {"content-type": "application/json"}

    async def caller(client: httpx.AsyncClient, count: int) -> None:
        for _ in range(count):
            begun = time.perf_counter()
            answer = await client.post(url, content=content, headers=headers)
            waits.append(time.perf_counter() - begun)
            answer.raise_for_status()

    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(limits=limits, timeout=30) as client:
        await caller(client, 20)
        waits.clear()
        begun = time.perf_counter()
        await asyncio.gather(*(caller(client, REQUESTS // connections) for _ in range(connections)))
        seconds = time.perf_counter() - begun
    return [len(waits) / seconds, statistics.median(waits), peers.percentile(waits, 0.99)]
