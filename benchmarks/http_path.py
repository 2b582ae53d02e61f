"""HTTP predictions beside a FastAPI route that returns a constant, under the same load."""

import json
import statistics
import sys

from benchmarks import events, peers
from benchmarks.comparison import Comparison
from benchmarks.data_plane import Bench
from benchmarks.http_load import send_load

REQUESTS = 1_500
_PREDICT = "/v1/models/failure/predictions"


def comparisons(bench: Bench) -> list[Comparison]:
    """Return the lines: requests a second at 1, 16 and 64 connections, and latency at one."""
    addresses: dict[str, str] = {}

    def address(name: str) -> str:
        if name not in addresses:
            addresses[name] = bench.service("predictor") if name == "predictor" else constant_route(bench)
        return addresses[name]

    def ours(connections: int) -> list[float]:
        return load(address("predictor") + _PREDICT, connections)

    def theirs(connections: int) -> list[float]:
        return load(address("constant") + _PREDICT, connections)

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


def load(url: str, connections: int) -> list[float]:
    """Send requests over some connections; return [requests a second, median seconds, 99th percentile seconds]."""
    body = {
        "entities": {"sensor": "sensor-00042"},
        "inputs": {"load": 5.0},
        "event_time": events.START_US + 1_000_000_000,
    }
    waits, seconds = send_load(url, json.dumps(body).encode(), connections=connections, requests=REQUESTS)
    return [len(waits) / seconds, statistics.median(waits), peers.percentile(waits, 0.99)]
