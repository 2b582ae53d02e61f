"""How fresh each view is: the newest event that is readable, and how long events take from the log to there.

The gauges of a process are about its own partitions: over several processes the newest one counts.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.runtime import metrics
from driftline.runtime.clock import Clock, SystemClock
from driftline.streaming.partitions import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """Events of a view that a batch makes readable: the newest one's time, and when each came into the log."""

    view: str
    newest_us: int
    logged_us: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Newest:
    event_us: int
    logged_us: int


class Freshness:
    """Keeps the newest readable event of each view and partition; ``targets`` are the oldest it may be, by view's reference."""

    def __init__(self, targets: Mapping[str, int], clock: Clock | None = None) -> None:
        self._targets = targets
        self._clock = clock or SystemClock()
        self._newest: dict[str, dict[Partition, _Newest]] = {}
        for view, target_us in targets.items():
            metrics.VIEW_FRESHNESS_TARGET.labels(view).set(target_us / 1e6)

    def begin(self, partition: Partition, views: Iterable[str], event_us: int, logged_us: int) -> None:
        """Take what a partition's log says of views of which no event has been seen since the start."""
        for view in views:
            self._newest.setdefault(view, {})[partition] = _Newest(event_us, logged_us)

    def readable(self, partition: Partition, found: Iterable[Readable]) -> None:
        """Take events that are readable since now."""
        now_us = self._clock.now_us()
        for one in found:
            if not len(one.logged_us):
                continue
            own = self._newest.setdefault(one.view, {})
            before = own.get(partition)
            logged_us = int(one.logged_us.max())
            own[partition] = _Newest(
                event_us=one.newest_us if before is None else max(one.newest_us, before.event_us),
                logged_us=logged_us if before is None else max(logged_us, before.logged_us),
            )
            waits = np.maximum(now_us - one.logged_us, 0) / 1e6
            metrics.EVENT_TO_READABLE.labels(one.view).observe_many(waits)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop partitions that belong to others now."""
        for own in self._newest.values():
            for partition in partitions:
                own.pop(partition, None)

    def show(self) -> None:
        """Set the gauges."""
        now_us = self._clock.now_us()
        for view, own in self._newest.items():
            if not own:
                metrics.forget_view(view)
                continue
            event_us = max(one.event_us for one in own.values())
            metrics.VIEW_EVENT_TIME.labels(view).set(event_us / 1e6)
            metrics.VIEW_LOGGED_TIME.labels(view).set(max(one.logged_us for one in own.values()) / 1e6)
            if view in self._targets:
                late = now_us - event_us > self._targets[view]
                metrics.VIEW_FRESHNESS_BREACHED.labels(view).set(late)
