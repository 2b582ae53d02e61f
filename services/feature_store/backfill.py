"""Views that are new to a partition get its history, while the others are served and the stream goes on.

Per partition one key says of which views the owner key's offset holds true: the *complete* ones
(``driftline.features.filling``). The live stream touches no other. The protocol, whose numbers return as comments beside
the code; every step is one of ``fenced_store``'s 10: refused unless epoch *and* live offset are what this process wrote.

Taking a partition:

1. A partition that is built from its oldest record has all declared views complete from the first record on. One
   that was written before there was this key: those of which it has any blob.
2. Declared views that are not complete are *wanted*. Complete ones that are not declared are no longer: the live
   stream leaves them behind from here on (their blobs stay). A changed declaration under the same version is refused.
3. A backfill of exactly the wanted views goes on at its own offset. Otherwise one step begins one: what an earlier one
   had seen (clock, ids) is deleted, and its views count as left behind.

Turns, between two batches of the live stream, on the same thread:

4. Blobs that were left of wanted views are deleted, lot by lot.
5. The next records of the log, from the oldest on, go the way of a live batch: decode, validate, log clock, duplicates,
   kernels. Clock and seen ids are the backfill's own, from its own reading of the log, so it decides as a store that
   had the views from the beginning. Bad records are passed over; the live stream has written their dead letters.
6. One step writes the blobs, the ids, the clock and the offset of the backfill. A process that is killed goes on there.
7. Records at or beyond the live offset are not taken. Where the backfill has come to the live offset, its last step
   makes the views complete instead and deletes its clock, ids and offset. No record lies between, none is on both sides:
   the offset was compared in that very step, and the live stream's next batch begins there.
8. The rows in memory go over to the live stream as they are.
9. Where reading the past fails, the backfill waits and the live stream goes on. Where a step fails, the store may be ahead of
   what this process knows: the partition starts anew, as after a failed batch.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from driftline.contracts.batch_codec import BatchDecoder
from driftline.features.filling import Build, Builds, Fill, StoredViews, fingerprints_of
from driftline.project import Project
from driftline.runtime.clock import Clock
from driftline.runtime.logging import get_logger
from driftline.streaming.partitions import Partition
from services.feature_store.fenced_store import FencedStore, Lane, Ownership
from services.feature_store.partition_state import Change, PartitionState
from services.feature_store.past_events import Past, Stretch
from services.feature_store.validation import LogClock
from services.feature_store.view_reconciling import Plan, completed, reconcile

_log = get_logger(__name__)

_HOUR_US = 3_600_000_000
_TOLD_SECONDS = 10.0
#: A rate counts the last minute or so: after so many seconds, what was before weighs a third.
_RATE_SECONDS = 30.0


def plan_views(
    store: FencedStore, ownership: Ownership, project: Project, now_us: int
) -> tuple[Ownership, Plan]:
    """Look what a partition's views need, and write down what begins and what ends; return the ownership since then."""
    declared = fingerprints_of(project, ownership.event_type)
    known = store.load_key(store.views_key(ownership))
    if known is None:  # (1)
        held = store.held_views(ownership, list(declared))
        stored = StoredViews(complete={ref: mark for ref, mark in declared.items() if ref in held})
    else:
        stored = StoredViews.parse(known)
    begun = store.load_key(store.fill_key(ownership))
    plan = reconcile(stored, None if begun is None else Fill.parse(begun), declared, now_us)  # (2)
    values, gone = {}, []
    if known is None or plan.views != stored:
        values[store.views_key(ownership)] = plan.views.format()
    if plan.anew:  # (3)
        clock = LogClock.parse(store.load_clock(ownership, Lane.FILL))
        gone = store.lane_keys(ownership, Lane.FILL, clock.record // _HOUR_US)
        if plan.fill is None:
            gone.append(store.fill_key(ownership))
        else:
            values[store.fill_key(ownership)] = plan.fill.format()
    if values or gone:
        ownership = store.change(ownership, values, gone)
    return ownership, plan


class Backfill:
    """Fills the views of one partition, a turn at a time.

    ``live`` is the partition's state in the live stream, whose ownership every step renews; ``make_state`` makes another
    one, of given views and the backfill's lane.
    """

    def __init__(
        self,
        store: FencedStore,
        live: PartitionState,
        plan: Plan,
        past: Past,
        *,
        partition: Partition,
        decoder: BatchDecoder,
        make_state: Callable[[], PartitionState],
        clock: Clock,
    ) -> None:
        assert plan.fill is not None  # noqa: S101  a backfill is made where there is one
        self.fill: Fill = plan.fill
        self.partition = partition
        self._store = store
        self._live = live
        self._views = plan.views
        self._past = past
        self._decoder = decoder
        self._make_state = make_state
        self._clock = clock
        self._state: PartitionState | None = None
        self._cursor = 0
        self._told = time.monotonic()
        self._measured: float | None = None
        #: Whether a step was begun whose answer did not come (9).
        self.in_doubt = False
        self.views = tuple(sorted(self.fill.views))

    @property
    def live_offset(self) -> int:
        """Where the live stream stands, up to which the views are filled."""
        return self._live.ownership.next_offset

    def turn(self) -> bool:
        """Do a bounded piece of the work; return whether the views are complete now.

        Raises
        ------
        LostOwnershipError
            The partition is no longer ours, or the store was reset.
        UnavailableError
            Store, broker, registry or archive do not answer.
        """
        began = time.monotonic()
        if self.fill.clearing:
            self._clear(self.fill.clearing[0])
            return False
        if self.fill.start is None:
            self._start()
        stop = self.live_offset
        state = self._state or self._make_state()
        stretch = None if self.fill.offset >= stop else self._read(stop)
        change, hour = None, state.hour
        if stretch is not None and stretch.table.num_rows:
            self._state = None  # whatever fails from here on: what it holds is read again
            change = state.apply(stretch.table, stretch.record_us)  # (5)
        fill = self._advanced(stretch, change, time.monotonic() - began)
        if fill.offset >= stop:
            self._complete(fill, change, state, hour)
            return True
        if change is not None or fill.offset > self.fill.offset:
            self._write(fill, change)
        self._state = state
        return False

    def _clear(self, ref: str) -> None:
        # (4)
        with self._step():
            self._live.ownership, self._cursor = self._store.unlink_blobs(
                self._live.ownership, ref, self._cursor
            )
        if self._cursor == 0:
            self._put(replace(self.fill, clearing=self.fill.clearing[1:]))

    def _start(self) -> None:
        first = min(self._past.first(self.partition), self.live_offset)
        self._put(replace(self.fill, start=first, offset=first, gone=first, begun_us=self._clock.now_us()))
        _log.info(
            "filling views from the log",
            partition=str(self.partition),
            views=list(self.views),
            records=self.fill.left(self.live_offset),
            gone=first,
        )

    def _read(self, stop: int) -> Stretch:
        return self._past.read(self.partition, self._decoder, self.fill.offset, stop)  # (7)

    def _advanced(self, stretch: Stretch | None, change: Change | None, seconds: float) -> Fill:
        if stretch is None:
            return self.fill
        read = stretch.next_offset - self.fill.offset
        if stretch.gone:
            _log.warning(
                "records are gone from the topic, and in no archive: the views are filled without them",
                partition=str(self.partition),
                offset=self.fill.offset,
                records=stretch.gone,
            )
        return replace(
            self.fill,
            offset=stretch.next_offset,
            gone=self.fill.gone + stretch.gone,
            events=self.fill.events + (0 if change is None else change.applied),
            rate=self._rate(read - stretch.gone, seconds),
        )

    def _rate(self, read: int, seconds: float) -> float:
        """Return the records a second by the clock on the wall: the time between turns counts too.

        ``seconds`` is what this turn took, for the first one.
        """
        now = time.monotonic()
        passed = seconds if self._measured is None else now - self._measured
        self._measured = now
        if passed <= 0:
            return self.fill.rate
        weight = min(1.0, passed / _RATE_SECONDS) if self.fill.rate else 1.0
        return (1 - weight) * self.fill.rate + weight * read / passed

    def _write(self, fill: Fill, change: Change | None) -> None:
        # (6)
        if change is None:
            self._put(fill)
        else:
            key = self._store.fill_key(self._live.ownership)
            with self._step():
                self._live.ownership = self._store.fill(
                    self._live.ownership, change.write, {key: fill.format()}
                )
        self.fill = fill
        if time.monotonic() - self._told >= _TOLD_SECONDS:
            self._told = time.monotonic()
            _log.info(
                "filling views",
                partition=str(self.partition),
                views=list(self.views),
                share=round(fill.share(self.live_offset), 3),
                seconds_left=fill.seconds_left(self.live_offset),
            )

    def _put(self, fill: Fill) -> None:
        ownership = self._live.ownership
        values = {self._store.fill_key(ownership): fill.format()}
        with self._step():
            self._live.ownership = self._store.change(ownership, values)
        self.fill = fill

    @contextmanager
    def _step(self) -> Iterator[None]:
        self.in_doubt = True
        yield
        self.in_doubt = False

    def _complete(self, fill: Fill, change: Change | None, state: PartitionState, hour: int) -> None:
        # (7)
        store, ownership, now_us = self._store, self._live.ownership, self._clock.now_us()
        assert fill.start is not None  # noqa: S101  turn() has started it
        build = Build(
            views=self.views,
            start=fill.start,
            stop=fill.offset,
            gone=fill.gone,
            begun_us=fill.begun_us,
            finished_us=now_us,
            seconds=(now_us - fill.begun_us) / 1e6,
            events=fill.events,
        )
        builds = Builds.parse(store.load_key(store.builds_key(ownership))).with_one(build)
        views = completed(self._views, fill)
        values = {store.views_key(ownership): views.format(), store.builds_key(ownership): builds.format()}
        gone = [store.fill_key(ownership), *store.lane_keys(ownership, Lane.FILL, hour)]
        last = None if change is None else change.write
        with self._step():
            self._live.ownership = store.complete(ownership, values, gone, last)
        self._live.adopt(state)  # (8)
        self.fill = fill
        _log.info(
            "views are complete",
            partition=str(self.partition),
            views=list(self.views),
            records=build.records,
            events=fill.events,
            gone=fill.gone,
            seconds=build.seconds,
        )
