"""Open-loop load: requests leave when they are due, whether or not earlier ones were answered.

A request's latency counts from the instant it was due, so that a server that stalls is charged for every request which
would have come meanwhile (no coordinated omission; Tene, "How NOT to measure latency", 2015).
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.http_client import Connection

_DRAIN_SECONDS = 10.0


@dataclass(slots=True, kw_only=True)
class Phase:
    """What became of the requests of one offered rate. Latencies are those of 2xx answers, in seconds."""

    name: str
    rate: float
    seconds: float
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    answered: list[int] = field(default_factory=list)
    in_time: int = 0
    unanswered: int = 0

    @property
    def offered(self) -> int:
        """How many requests were due."""
        return sum(self.statuses.values()) + self.unanswered

    @property
    def good(self) -> int:
        """How many were answered with 2xx."""
        return sum(number for status, number in self.statuses.items() if 200 <= status < 300)

    @property
    def throughput(self) -> float:
        """2xx answers a second while requests were offered; those after that are not counted."""
        return self.in_time / self.seconds

    def share(self, status: int) -> float:
        """Return the share of the requests that were answered with a status."""
        return self.statuses[status] / max(1, self.offered)

    def latency(self, share: float) -> float:
        """Return a percentile of the latencies, in milliseconds; infinite where nothing was answered."""
        return float(np.quantile(self.latencies, share)) * 1e3 if self.latencies else float("inf")

    def as_json(self) -> dict[str, object]:
        """The phase as it stands in latest.json."""
        return {
            "phase": self.name,
            "offered_per_second": self.rate,
            "seconds": self.seconds,
            "offered": self.offered,
            "answered": self.good,
            "answered_per_second": self.throughput,
            "statuses": {str(status): number for status, number in sorted(self.statuses.items())},
            "unanswered": self.unanswered,
            **{
                f"p{str(share * 100).rstrip('0').rstrip('.')}_ms": self.latency(share)
                for share in (0.5, 0.9, 0.99, 0.999)
            },
        }


class OpenLoop:
    """Offers requests at a rate over some connections. Make it inside a running event loop, with ``open``."""

    def __init__(self, url: str, connections: int, make: Callable[[int], bytes]) -> None:
        self._url = url
        self._number = connections
        self._make = make
        self._made = 0
        self._connections: list[Connection] = []
        self._idle: deque[Connection] = deque()
        self._waiting: deque[tuple[float, int]] = deque()
        self._under_way: dict[Connection, tuple[float, int]] = {}
        self._phase: Phase | None = None
        self._ends = 0.0

    async def open(self) -> None:
        """Connect."""
        for _ in range(self._number):
            self._connections.append(await Connection.open(self._url, self._answered))
        self._idle.extend(self._connections)

    def close(self) -> None:
        """Hang up."""
        for connection in self._connections:
            connection.close()

    async def run(self, name: str, *, rate: float, seconds: float, seed: int = 1) -> Phase:
        """Offer requests for some seconds, at exponentially distributed distances; wait for their answers."""
        self._phase = phase = Phase(name=name, rate=rate, seconds=seconds)
        due = _arrivals(rate, seconds, seed)
        begun = time.perf_counter()
        self._ends = begun + seconds
        for at in (begun + due).tolist():
            while (pause := at - time.perf_counter()) > 0:
                await asyncio.sleep(pause if pause > 0.001 else 0)
            self._send(at)
        until = time.perf_counter() + _DRAIN_SECONDS
        while (self._under_way or self._waiting) and time.perf_counter() < until:
            await asyncio.sleep(0.005)
        phase.unanswered = len(self._under_way) + len(self._waiting)
        self._waiting.clear()
        return phase

    def _send(self, due: float) -> None:
        number = self._made
        self._made += 1
        if self._idle:
            self._ask(self._idle.popleft(), due, number)
        else:
            self._waiting.append((due, number))

    def _ask(self, connection: Connection, due: float, number: int) -> None:
        self._under_way[connection] = (due, number)
        connection.ask(self._make(number))

    def _answered(self, connection: Connection, status: int) -> None:
        due, number = self._under_way.pop(connection)
        phase = self._phase
        if phase is not None:
            phase.statuses[status] += 1
            if 200 <= status < 300:
                now = time.perf_counter()
                phase.latencies.append(now - due)
                phase.answered.append(number)
                phase.in_time += now <= self._ends
        if self._waiting:
            self._ask(connection, *self._waiting.popleft())
        else:
            self._idle.append(connection)


def _arrivals(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Return when requests are due, in seconds from the start: a Poisson process."""
    random = np.random.default_rng(seed)
    gaps = random.exponential(1 / rate, int(rate * seconds * 1.5) + 20)
    due = np.cumsum(gaps)
    return due[due < seconds]
