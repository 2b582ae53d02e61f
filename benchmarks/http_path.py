"""HTTP predictions beside a FastAPI route that returns a constant, under the same load."""

import functools
import json
import os
import sys
from typing import Any

from benchmarks import closed_loop, events, peers
from benchmarks.closed_loop import Answers
from benchmarks.comparison import Comparison
from benchmarks.data_plane import Bench
from benchmarks.http_client import request_bytes

PREDICT = "/v1/models/failure/predictions"
BODY: dict[str, Any] = {
    "entities": {"sensor": "sensor-00042"},
    "inputs": {"load": 5.0},
    "event_time": events.START_US + 1_000_000_000,
}


def comparisons(bench: Bench) -> list[Comparison]:
    """Return the lines: requests a second at 1 and 16 connections, and latency at one."""
    constant = functools.cache(lambda: route(bench, "constant_route"))

    def ours(connections: int) -> Answers:
        return predictions(bench.predictor(), connections)

    def theirs(connections: int) -> Answers:
        return predictions(constant(), connections)

    lines = [
        Comparison(
            name=f"HTTP predictions, {connections} connections / constant FastAPI route",
            unit="requests/s",
            ours=lambda connections=connections: ours(connections).rate,  # type: ignore[misc]
            theirs=lambda connections=connections: theirs(connections).rate,  # type: ignore[misc]
            aim=None if connections == 1 else 1.3,
            note="the client shares the two cores",
        )
        for connections in (1, 16, 64)
    ]
    lines.insert(
        1,
        Comparison(
            name="HTTP predictions, 1 connection, the broker's acknowledgement apart / constant FastAPI route",
            unit="requests/s",
            ours=lambda: _without(
                peers.acknowledgement_seconds(bench.bootstrap, bench.single_records()), ours(1).rate
            ),
            theirs=lambda: theirs(1).rate,
            aim=0.7,
            note="apart: what a bare producer with the predictor's settings waits for one record of 500 bytes",
        ),
    )
    for name, place in (("median", "median"), ("99th percentile", "p99")):
        lines.append(
            Comparison(
                name=f"HTTP latency, {name}, one connection / constant FastAPI route",
                unit="ms",
                better="lower",
                ours=lambda place=place: getattr(ours(1), place) * 1e3,  # type: ignore[misc]
                theirs=lambda place=place: getattr(theirs(1), place) * 1e3,  # type: ignore[misc]
                note="ours includes the broker's acknowledgement of the log record",
            )
        )
    return lines


def _without(seconds: float, rate: float) -> float:
    """Return the rate of requests that each wait so many seconds less."""
    return 1 / (1 / rate - seconds)


def predictions(address: str, connections: int) -> Answers:
    """Ask a server that takes our predictor's requests."""
    url = address + PREDICT
    return closed_loop.load(url, request_bytes(url, json.dumps(BODY).encode()), connections)


def route(bench: Bench, module: str) -> str:
    """Start one of the FastAPI peers in this folder and return its address."""
    environment = {
        **os.environ,
        **bench.environment,
        "BENCH_STATE": str(bench.folder),
        "DRIFTLINE_MODELS": str(bench.folder / "models"),
        "OPENBLAS_NUM_THREADS": "1",
    }
    return bench.launch([sys.executable, "-m", f"benchmarks.{module}"], environment, module)
