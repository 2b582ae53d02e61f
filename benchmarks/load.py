"""`make load`: how much the predictor bears over HTTP, what it does at twice as much, and whether it recovers.

1. Rising rates, each for some seconds, until answers no longer keep pace. The most that were answered in a second are
   the saturation point; the last rate whose 99th percentile was in time is the capacity.
2. Twice the saturation point: what cannot be served is refused (429), the rest is answered soon: the model's callers are
   promised 100 ms, so the predictor takes no more than it can answer by then.
3. Half of the capacity: as before.

At the end every 2xx must be in the log.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import uvloop
from confluent_kafka import Consumer, TopicPartition
from rich.console import Console
from rich.table import Table

from benchmarks import data_plane, events
from benchmarks.data_plane import Bench
from benchmarks.http_client import request_bytes
from benchmarks.open_loop import OpenLoop, Phase
from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.embedded import EmbeddedStack

REPORT = Path(".driftline/load/latest.json")
_EVENTS = 20_000
_GROWTH = 1.4
_STEPS = 14
#: Answers keep pace with a rate while so large a share comes as requests are offered.
_PACE = 0.9


def main() -> int:
    """Run the load and print what came of it; the exit code is 1 where a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=float, default=200, help="first rate, requests a second")
    parser.add_argument("--seconds", type=float, default=3, help="length of each rate")
    parser.add_argument("--target", type=float, default=100, help="99th percentile of an answer in time, ms")
    parser.add_argument(
        "--connections", type=int, default=1_500, help="connections at most under way at once"
    )
    arguments = parser.parse_args()
    console = Console(width=120)
    _allow_connections(arguments.connections)
    with tempfile.TemporaryDirectory(prefix="driftline-load-") as folder, ExitStack() as closing:
        stack = closing.enter_context(EmbeddedStack(Path(folder)))
        bench = Bench(folder=Path(folder), rows=_EVENTS)
        closing.callback(bench.close)
        data_plane.prepare(bench, stack.environment, console)
        address = bench.service("predictor", DRIFTLINE_LOG_LEVEL="warning")
        requests = Requests(f"{address}/v1/models/failure/predictions")
        phases = uvloop.run(drive(requests, arguments, console))
        lost = requests.not_logged(bench, phases)
    return report(phases, lost, arguments.target, console)


class Requests:
    """Requests by number, each with a UUID of its own that the log is searched for afterwards."""

    def __init__(self, url: str) -> None:
        self.url = url

    def make(self, number: int) -> bytes:
        """Return a request as bytes."""
        body = (
            b'{"request_id":"%s","entities":{"sensor":"sensor-%05d"},"inputs":{"load":%d.5},"event_time":%d}'
            % (
                self._id(number).encode(),
                number % events.SENSORS,
                number % 100,
                events.START_US + 1_000_000_000,
            )
        )
        return request_bytes(self.url, body)

    @staticmethod
    def _id(number: int) -> str:
        return str(uuid.UUID(int=number + 1, version=4))

    def not_logged(self, bench: Bench, phases: list[Phase]) -> int:
        """Return how many 2xx answers have no record in the log."""
        codec = RecordCodec(prediction_schema(bench.project))
        logged: set[str] = set()
        reader = Consumer(
            {"bootstrap.servers": bench.bootstrap, "group.id": "load", "isolation.level": "read_committed"}
        )
        try:
            for number in bench_partitions(reader, bench.topics.predictions):
                where = TopicPartition(bench.topics.predictions, number, 0)
                _, high = reader.get_watermark_offsets(where, timeout=10)
                reader.assign([where])
                until, at = time.monotonic() + 60, 0
                while at < high and time.monotonic() < until:
                    for message in reader.consume(10_000, 0.5):
                        value = message.value()
                        if message.error() is None and value is not None:
                            logged.add(codec.decode(value[5:])["request_id"])
                            at = (message.offset() or 0) + 1
        finally:
            reader.close()
        return len({self._id(number) for phase in phases for number in phase.answered} - logged)


def bench_partitions(reader: Consumer, topic: str) -> list[int]:
    """Return a topic's partitions."""
    return sorted(reader.list_topics(topic, timeout=10).topics[topic].partitions)


async def drive(requests: Requests, arguments: argparse.Namespace, console: Console) -> list[Phase]:
    """Offer the phases in turn."""
    loop = OpenLoop(requests.url, arguments.connections, requests.make)
    await loop.open()
    try:
        await loop.run("warm-up", rate=arguments.first / 2, seconds=2)
        phases: list[Phase] = []
        rate = arguments.first
        for step in range(_STEPS):
            phase = await loop.run("rising", rate=rate, seconds=arguments.seconds, seed=step)
            phases.append(_told(phase, console))
            if phase.throughput < _PACE * phase.offered / phase.seconds:
                break
            rate *= _GROWTH
        twice, half = 2 * saturation(phases), capacity(phases, arguments.target) / 2
        phases.append(_told(await loop.run("twice", rate=twice, seconds=2 * arguments.seconds), console))
        if half:
            phases.append(_told(await loop.run("recovery", rate=half, seconds=arguments.seconds), console))
        return phases
    finally:
        loop.close()


def saturation(phases: list[Phase]) -> float:
    """Return the most 2xx answers a second while the rate rose."""
    return max(phase.throughput for phase in phases if phase.name == "rising")


def capacity(phases: list[Phase], target_ms: float) -> float:
    """Return the last rising rate of which all were served in time; 0 where none was."""
    rates = [phase.rate for phase in phases if phase.name == "rising" and served(phase, target_ms)]
    return max(rates, default=0.0)


def served(phase: Phase, target_ms: float) -> bool:
    """Tell whether every request of a phase was answered with 2xx, 99 of 100 in time."""
    return phase.good == phase.offered and phase.latency(0.99) <= target_ms


def _told(phase: Phase, console: Console) -> Phase:
    console.print(
        f"  {phase.name}: {phase.rate:,.0f}/s offered, {phase.throughput:,.0f}/s answered",
        style="dim",
    )
    return phase


def report(phases: list[Phase], lost: int, target_ms: float, console: Console) -> int:
    """Print the phases and the verdict, write latest.json, return the exit code."""
    table = Table(title="The predictor under open-loop load (latency from the instant a request was due)")
    for heading in ("phase", "offered/s", "2xx/s", "429", "other", "p50 ms", "p90", "p99", "p99.9"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for phase in phases:
        other = phase.offered - phase.good - phase.statuses[429]
        table.add_row(
            phase.name,
            f"{phase.rate:,.0f}",
            f"{phase.throughput:,.0f}",
            f"{phase.share(429):.0%}",
            f"{other:,}",
            *(f"{phase.latency(share):,.1f}" for share in (0.5, 0.9, 0.99, 0.999)),
        )
    console.print(table)
    console.print(
        f"saturates at {saturation(phases):,.0f} requests a second; capacity {capacity(phases, target_ms):,.0f} a second "
        f"with 99 of 100 answers within {target_ms:g} ms"
    )
    verdict = judged(phases, lost, target_ms)
    for said, kept in verdict.items():
        console.print(f"{'kept  ' if kept else 'BROKEN'}  {said}")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "saturation_per_second": saturation(phases),
        "capacity_per_second": capacity(phases, target_ms),
        "target_ms": target_ms,
        "phases": [phase.as_json() for phase in phases],
        "not_logged": lost,
        "kept": verdict,
    }
    REPORT.write_text(json.dumps(found, indent=1) + "\n")
    console.print(f"written to {REPORT}")
    return 0 if all(verdict.values()) else 1


def judged(phases: list[Phase], lost: int, target_ms: float) -> dict[str, bool]:
    """Return the promises, and whether they were kept."""
    (twice,) = (phase for phase in phases if phase.name == "twice")
    foreign = {status for status in twice.statuses if status != 429 and not 200 <= status < 300}
    shed = twice.statuses[429] > 0 and twice.throughput >= 0.8 * saturation(phases)
    recovered = [served(phase, target_ms) for phase in phases if phase.name == "recovery"]
    return {
        "twice the saturation point: every request is answered, with 2xx or 429": not (
            foreign or twice.unanswered
        ),
        "twice the saturation point: some are refused, and four fifths of what it can are served": shed,
        f"twice the saturation point: 99 of 100 answers within twice the {target_ms:g} ms": (
            twice.latency(0.99) <= 2 * target_ms
        ),
        "half of the capacity after that: all are served in time": recovered == [True],
        "every 2xx is in the log": lost == 0,
    }


def _allow_connections(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 200
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard > 0 else wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
