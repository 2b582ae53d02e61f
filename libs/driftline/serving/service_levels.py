"""Service levels of models over HTTP: which share of answers was good, and how fast the error budget burns.

A budget is what an objective leaves: of an availability of .999 one request in a thousand may fail. A burn rate of 1 uses
it up exactly within the objective's period. An alert needs two windows at once, a long one for its weight and a short one
that ends it soon after the trouble does: 14.4 over 1 h and 5 min (2% of a 30-day budget gone in an hour) is for a
pager, 6 over 6 h and 30 min (5% in six hours) for a ticket. Source: Google, "The Site Reliability Workbook" (2018), chapter 5.

The counts are a process's own and begin with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.project import ServiceLevelRule

_BUCKET_SECONDS = 10
_MINUTES = (5, 30, 60, 360)
_BUCKETS = _MINUTES[-1] * 60 // _BUCKET_SECONDS
#: Fewer bad answers than these in the long window are no trend.
_LEAST_BAD = 10
_TOTAL, _FAILED, _LATE, _DEGRADED = range(4)

Counts = NDArray[np.int64]


class Burning(StrEnum):
    """How fast a budget burns."""

    NO = "no"
    SLOWLY = "slowly"
    FAST = "fast"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alarm:
    """Both windows, in minutes, must burn at the rate or faster."""

    burning: Burning
    long: int
    short: int
    rate: float


_ALARMS = (
    _Alarm(burning=Burning.FAST, long=60, short=5, rate=14.4),
    _Alarm(burning=Burning.SLOWLY, long=360, short=30, rate=6.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevel:
    """How one objective of one model stands in this process.

    ``good`` is the share of good answers in the last six hours (None: there were none), ``rates`` the burn rates by
    window in minutes.
    """

    model: str
    objective: str
    target: float
    requests: int
    good: float | None
    rates: Mapping[str, float]
    burning: Burning

    def as_json(self) -> dict[str, Any]:
        """Return it as ``/readyz`` shows it."""
        return asdict(self)


class ServiceLevels:
    """Counts the answers of models that declare service levels. Thread-safe.

    ``now`` gives seconds that only go on; ``degrading`` names the models that may answer without the online store.
    """

    def __init__(
        self,
        rules: Mapping[str, ServiceLevelRule],
        *,
        now: Callable[[], float],
        degrading: Collection[str] = (),
    ) -> None:
        self._rules = dict(rules)
        self._now = now
        self._degrading = frozenset(degrading)
        self._lock = threading.Lock()
        #: By model: requests, failed, late and degraded ones in each bucket, a ring.
        self._counts: dict[str, Counts] = {name: np.zeros((_BUCKETS, 4), np.int64) for name in rules}
        self._newest = int(now() // _BUCKET_SECONDS)
        #: Those of the newest bucket, on their way there: adding to a list costs a tenth of adding to an array.
        self._running = {name: [0] * 4 for name in rules}

    def answered(self, model: str, seconds: float, *, degraded: bool = False) -> None:
        """Count an answer."""
        rule = self._rules.get(model)
        if rule is not None:
            with self._lock:
                self._turn()
                counts = self._running[model]
                counts[_TOTAL] += 1
                counts[_LATE] += seconds * 1e6 > rule.latency_us
                counts[_DEGRADED] += degraded

    def failed(self, model: str) -> None:
        """Count a request that was not answered through a fault of ours, shedding included."""
        if model in self._rules:
            with self._lock:
                self._turn()
                counts = self._running[model]
                counts[_TOTAL] += 1
                counts[_FAILED] += 1

    def levels(self) -> list[ServiceLevel]:
        """Return how every objective stands."""
        with self._lock:
            self._turn()
            self._note_running()
            counts = {name: self._sums(ring) for name, ring in self._counts.items()}
        return [
            level
            for name, sums in counts.items()
            for level in _levels(name, self._rules[name], sums, degrades=name in self._degrading)
        ]

    def _turn(self) -> None:
        """Begin with the bucket of now, where it is another; empty those that begin anew."""
        now = self._now()
        if now < (self._newest + 1) * _BUCKET_SECONDS:
            return
        self._note_running()
        bucket = int(now // _BUCKET_SECONDS)
        begun = min(bucket - self._newest, _BUCKETS)
        places = np.arange(bucket - begun + 1, bucket + 1) % _BUCKETS
        for ring in self._counts.values():
            ring[places] = 0
        self._running = {name: [0] * 4 for name in self._rules}
        self._newest = bucket

    def _note_running(self) -> None:
        for name, counts in self._running.items():
            self._counts[name][self._newest % _BUCKETS] = counts

    def _sums(self, ring: Counts) -> dict[int, Counts]:
        """Return the counts of each window, by its minutes."""
        order = (self._newest - np.arange(_BUCKETS)) % _BUCKETS
        running = ring[order].cumsum(axis=0)
        return {minutes: running[minutes * 60 // _BUCKET_SECONDS - 1] for minutes in _MINUTES}


def _levels(
    model: str, rule: ServiceLevelRule, sums: Mapping[int, Counts], *, degrades: bool
) -> Iterable[ServiceLevel]:
    """Yield the objectives: a request that failed is not available, and one that was answered late is late.

    An answer without the online store is available; that it is not complete has an objective of its own, as high.
    """
    objectives = [("availability", rule.availability, _FAILED), ("latency", rule.latency_share, _LATE)]
    if degrades:
        objectives.append(("completeness", rule.availability, _DEGRADED))
    for objective, target, bad in objectives:
        asked = {
            minutes: int(counts[_TOTAL] - (0 if bad == _FAILED else counts[_FAILED]))
            for minutes, counts in sums.items()
        }
        rates = {
            minutes: float(counts[bad]) / asked[minutes] / (1 - target) if asked[minutes] else 0.0
            for minutes, counts in sums.items()
        }
        longest = sums[_MINUTES[-1]]
        requests = asked[_MINUTES[-1]]
        yield ServiceLevel(
            model=model,
            objective=objective,
            target=target,
            requests=requests,
            good=1 - float(longest[bad]) / requests if requests else None,
            rates={str(minutes): rate for minutes, rate in rates.items()},
            burning=_burning(rates, {minutes: int(counts[bad]) for minutes, counts in sums.items()}),
        )


def _burning(rates: Mapping[int, float], bad: Mapping[int, int]) -> Burning:
    for alarm in _ALARMS:
        if min(rates[alarm.long], rates[alarm.short]) >= alarm.rate and bad[alarm.long] >= _LEAST_BAD:
            return alarm.burning
    return Burning.NO
