"""When backfills have their turns: whenever the live stream has nothing, and a share of the time when it has."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from driftline.runtime import metrics
from driftline.runtime.errors import LostOwnershipError, UnavailableError
from driftline.runtime.logging import get_logger
from driftline.streaming.loop import LOST_OWNERSHIP_SECONDS
from driftline.streaming.partitions import Partition
from services.feature_store.backfill import Backfill

_log = get_logger(__name__)

#: What a backfill may save up of its share, in seconds: it never holds the live stream up for longer.
_LARGEST_CREDIT = 0.5
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class _Pause:
    until: float
    seconds: float
    reason: str


class FillingTurns:
    """The backfills of this process's partitions, one after the other.

    ``share`` is how much of the time they get while live batches come without a pause.
    """

    def __init__(self, share: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._now = now
        self._waiting: dict[Partition, Backfill] = {}
        self._anew: dict[Partition, float] = {}
        self._pauses: dict[Partition, _Pause] = {}
        self._credit = 0.0
        self._last = now()

    def begin(self, backfill: Backfill) -> None:
        """Take a partition's backfill on."""
        self._waiting[backfill.partition] = backfill
        self._anew.pop(backfill.partition, None)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop the backfills of partitions; they go on elsewhere, or anew."""
        for partition in partitions:
            self._waiting.pop(partition, None)
            self._anew.pop(partition, None)
            self._pauses.pop(partition, None)
            metrics.forget_backfill(partition.topic, partition.number)

    def take_anew(self) -> dict[Partition, float]:
        """Return the partitions whose backfill failed, and after how many seconds they start anew."""
        anew, self._anew = self._anew, {}
        return anew

    def turn(self, *, busy: bool) -> Backfill | None:
        """Give a backfill its turn if it is due one; return the one that is through by it.

        ``busy`` says that the live stream had a batch since the last call.
        """
        partition = self._next()
        if partition is None:
            self._credit, self._last = 0.0, self._now()
            return None
        began = self._now()
        earned = (began - self._last) * self._share / (1 - self._share)
        self._credit = min(_LARGEST_CREDIT, self._credit + earned)
        done = None
        if not busy or self._credit > 0:
            done = self._run(partition, self._waiting[partition])
            if busy:
                self._credit -= self._now() - began
        self._last = self._now()
        return done

    @property
    def pressing(self) -> bool:
        """Whether a backfill can go on at once."""
        return self._next() is not None

    def as_json(self) -> list[dict[str, Any]]:
        """Return what is being filled, for people."""
        return [
            {
                "partition": str(partition),
                "views": list(one.views),
                "share": round(one.fill.share(one.live_offset), 4),
                "records_left": one.fill.left(one.live_offset),
                "seconds_left": one.fill.seconds_left(one.live_offset),
                "waits_for": pause.reason if (pause := self._pauses.get(partition)) is not None else "",
            }
            for partition, one in list(self._waiting.items())
        ]

    def show(self) -> None:
        """Set the gauges."""
        for partition, one in self._waiting.items():
            place = partition.topic, str(partition.number)
            metrics.BACKFILL_LEFT.labels(*place).set(one.fill.left(one.live_offset))
            metrics.BACKFILL_RATE.labels(*place).set(one.fill.rate)
            seconds = one.fill.seconds_left(one.live_offset)
            metrics.BACKFILL_SECONDS_LEFT.labels(*place).set(float("nan") if seconds is None else seconds)

    def _run(self, partition: Partition, backfill: Backfill) -> Backfill | None:
        before = backfill.fill.offset
        try:
            with metrics.STEP_SECONDS.labels("backfill").time():
                done = backfill.turn()
        except LostOwnershipError as error:
            self._start_anew(partition, LOST_OWNERSHIP_SECONDS, error)
            return None
        except UnavailableError as error:
            if backfill.in_doubt:
                self._start_anew(partition, _FIRST_PAUSE, error)
            else:
                self._pause(partition, error)
            return None
        self._pauses.pop(partition, None)
        metrics.BACKFILL_RECORDS.labels(partition.topic).inc(max(0, backfill.fill.offset - before))
        if not done:
            return None
        del self._waiting[partition]
        metrics.forget_backfill(partition.topic, partition.number)
        return backfill

    def _next(self) -> Partition | None:
        now = self._now()
        for partition in self._waiting:
            pause = self._pauses.get(partition)
            if pause is None or pause.until <= now:
                return partition
        return None

    def _start_anew(self, partition: Partition, seconds: float, error: Exception) -> None:
        _log.warning("filling stopped; starting anew", partition=str(partition), error=str(error))
        del self._waiting[partition]
        self._anew[partition] = seconds

    def _pause(self, partition: Partition, error: Exception) -> None:
        before = self._pauses.get(partition)
        seconds = _FIRST_PAUSE if before is None else min(_LAST_PAUSE, 2 * before.seconds)
        _log.warning("filling waits", partition=str(partition), seconds=seconds, error=str(error))
        self._pauses[partition] = _Pause(self._now() + seconds, seconds, str(error))
