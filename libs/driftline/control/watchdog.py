"""The watchdog: a thread that ends the process when messages wait and nothing moves.

It has its own connection and does not trust the event loop, nor what Faust says of itself. What waits is a record
that readers can see; transaction markers behind the last one are no lag. Every app has a tick on each of its
partitions, so an app that stands still has lag within a second.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from driftline.control.faust_app import SESSION_SECONDS
from driftline.runtime import metrics
from driftline.runtime.errors import OffsetGapError, UnavailableError
from driftline.runtime.health import Health
from driftline.runtime.logging import get_logger
from driftline.streaming.partitions import Partition
from driftline.streaming.stall_guard import end_process

_log = get_logger(__name__)

_CHECK_SECONDS = 1.0
_COMMIT_EVERY = 5.0
_COMMIT_ALARM_SECONDS = 30.0


class Observed(Protocol):
    """What the watchdog looks at."""

    def settled(self) -> bool:
        """Whether partitions are assigned and flowing."""
        ...

    def assigned(self) -> Iterable[Partition]:
        """Return the partitions of this process."""
        ...

    def next_offset(self, partition: Partition) -> int | None:
        """Return the offset behind the last handled record; None where none was handled yet."""
        ...


class Positions(Protocol):
    """What the watchdog asks the broker; ``PartitionReader`` has it."""

    def committed(self, partition: Partition) -> int | None:
        """Return the group's committed offset."""
        ...

    def end(self, partition: Partition) -> int:
        """Return the offset behind the last record."""
        ...

    def first_visible(self, partition: Partition, offset: int | None) -> int | None:
        """Return the first offset from ``offset`` on that holds a record."""
        ...


class Watchdog:
    """Looks once a second; ``look`` is one look."""

    def __init__(
        self,
        observed: Observed,
        positions: Positions,
        *,
        health: Health,
        stall_seconds: float,
        start_seconds: float,
        end: Callable[[str], None] = end_process,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observed = observed
        self._positions = positions
        self._health = health
        self._stall_seconds = stall_seconds
        self._start_seconds = start_seconds
        self._end = end
        self._now = now
        self._looked = self._unsettled = now()
        self._waiting: dict[Partition, tuple[int | None, float]] = {}  # next offset, since when
        self._committed: dict[Partition, tuple[int | None, float]] = {}
        self._next_commits = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(15)

    def look(self) -> None:
        """Look once; end the process if it stands still."""
        now = self._now()
        if now - self._looked > SESSION_SECONDS:
            # Stopped, swapped or starved: others may own the partitions, and must not be written over.
            self._end(f"this process did not run for {now - self._looked:.0f} s")
        self._looked = now
        try:
            self._look(now)
        except UnavailableError as error:
            self._health.set("broker", False, str(error))
            self._waiting.clear()  # nothing can move without the broker
            self._unsettled = self._looked = self._now()
        else:
            self._health.set("broker", True)
            self._looked = self._now()

    def _look(self, now: float) -> None:
        if not self._observed.settled():
            self._waiting.clear()
            self._health.set("stream", False)  # no detail: joining is no error
            if now - self._unsettled > self._start_seconds:
                self._end(f"no partitions for {now - self._unsettled:.0f} s after a start or rebalance")
            return
        self._unsettled = now
        partitions = list(self._observed.assigned())
        for partition in partitions:
            self._look_at(partition, now)
        if not partitions:
            self._health.set("stream", True, "standing by: other instances have all partitions")
            self._health.progress("stream")
        if now >= self._next_commits:
            self._look_at_commits(partitions, now)
            self._next_commits = now + _COMMIT_EVERY

    def _look_at(self, partition: Partition, now: float) -> None:
        next_offset = self._observed.next_offset(partition)
        if next_offset is None:
            next_offset = self._positions.committed(partition)
        lag = max(0, self._positions.end(partition) - (next_offset or 0))
        metrics.LAG.labels(partition.topic, str(partition.number)).set(lag)
        seen, since = self._waiting.get(partition, (None, now))
        if not lag or partition not in self._waiting or seen != next_offset:
            self._waiting[partition] = (next_offset, now)
            return
        if now - since > self._stall_seconds:
            try:
                visible = self._positions.first_visible(partition, next_offset)
            except OffsetGapError:
                return  # the ledger meets it as well, and says so with the right exit code
            if visible is not None:
                self._end(f"{partition}: offset {visible} waits for {now - since:.0f} s without progress")
            self._waiting[partition] = (next_offset, now)

    def _look_at_commits(self, partitions: Iterable[Partition], now: float) -> None:
        """Raise the alarm where records are handled but their offsets are not committed."""
        late = []
        for partition in partitions:
            handled, committed = self._observed.next_offset(partition), self._positions.committed(partition)
            seen, since = self._committed.get(partition, (None, now))
            if (
                handled is None
                or committed == handled
                or partition not in self._committed
                or seen != committed
            ):
                self._committed[partition] = (committed, now)
            elif now - since > _COMMIT_ALARM_SECONDS:
                late.append(str(partition))
        if late:
            _log.error("offsets are not committed", partitions=late, seconds=_COMMIT_ALARM_SECONDS)
        self._health.set("commits", not late, f"not committed for a while: {', '.join(late)}" if late else "")

    def _run(self) -> None:
        while not self._stop.wait(_CHECK_SECONDS):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  a dead watchdog watches nothing
                _log.exception("the watchdog failed")
                self._end(f"the watchdog failed: {error}")
