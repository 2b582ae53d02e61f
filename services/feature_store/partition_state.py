"""What is kept in memory of a partition, and what a batch of its events changes in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.features import FeatureView
from driftline.features.event_columns import event_keys
from driftline.features.keys import blob_key
from driftline.features.layout import ViewLayout
from driftline.features.matching import filtered_inputs, matches, spoken
from driftline.project import EventType, Project
from driftline.runtime import metrics
from driftline.runtime.errors import BadMessageError
from services.feature_store.fenced_store import FencedStore, Lane, Ownership, StoreWrite
from services.feature_store.freshness import Readable
from services.feature_store.resident_views import ResidentView
from services.feature_store.seen_index import SeenIndex, hash_ids
from services.feature_store.validation import EventValidation, LogClock

_HOUR_US = 3_600_000_000

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a batch changed: the write to make, the events refused (by row of the table), counts, and what is readable
    of each view once it is written.
    """

    write: StoreWrite
    refused: Sequence[tuple[int, BadMessageError]]
    applied: int
    duplicates: int
    readable: Sequence[Readable] = ()


class PartitionState:
    """The state of one partition of an event type, as of its next offset.

    ``views`` are those that its events are applied to; which events count does not depend on them. ``lane`` says whose
    log clock and seen ids these are.
    """

    def __init__(
        self,
        store: FencedStore,
        ownership: Ownership,
        project: Project,
        *,
        prefix: str,
        partitions: int,
        max_entities: int,
        views: Iterable[FeatureView],
        lane: Lane = Lane.LIVE,
    ) -> None:
        self.ownership = ownership
        self._store = store
        self._event_type: EventType = project.event_type(ownership.event_type)
        self._views = [
            (view, ResidentView(ViewLayout.of(view), self._key_of(prefix, view.ref), limit=max_entities))
            for view in views
        ]
        layouts = map(ViewLayout.of, project.views_of(ownership.event_type))
        inputs = {name for layout in layouts for name in layout.fields}
        self._validation = EventValidation(
            self._event_type,
            sorted(inputs),
            partition=ownership.partition,
            partitions=partitions,
            future_skew_us=project.future_skew_us,
            max_jump_us=project.max_jump_us,
        )
        self._clock = LogClock.parse(store.load_clock(ownership, lane))
        self._seen = SeenIndex()
        for hour, hashes in store.load_seen(ownership, self.hour, lane):
            self._seen.load(hour, hashes)

    @property
    def resident(self) -> int:
        """How many rows are in memory."""
        return sum(len(resident) for _, resident in self._views)

    @property
    def hour(self) -> int:
        """The hour of the log's clock, since the epoch."""
        return self._clock.record // _HOUR_US

    @property
    def newest(self) -> tuple[int, int] | None:
        """The newest event's time, and the log's when one was last accepted, as the store has kept them."""
        return None if self._clock.newest is None else (self._clock.newest, self._clock.accepted)

    def apply(self, table: pa.RecordBatch, record_us: Ints) -> Change:
        """Apply the decoded events of a batch; nothing is written yet.

        ``record_us`` are the timestamps of the events' records.
        """
        with metrics.STEP_SECONDS.labels("validate").time():
            events = self._validation.check(table, record_us, self._clock)
        self._clock = events.clock
        with metrics.STEP_SECONDS.labels("duplicates").time():
            everything = len(events.rows) == table.num_rows
            valid = table if everything else table.take(pa.array(events.rows))
            hashes = hash_ids(valid.column(self._event_type.event_id))
            hours = events.log_us // _HOUR_US
            kept_before = self._seen.hours
            new = self._seen.add_new(hashes, hours)
            self._seen.forget_before(events.clock.record // _HOUR_US)
            fresh = np.flatnonzero(new)
        with metrics.STEP_SECONDS.labels("apply").time():
            if len(fresh) != len(events.rows):
                valid = valid.take(pa.array(fresh))
            time_us, log_us = events.time_us[fresh], events.log_us[fresh]
            inputs = {name: column[fresh] for name, column in events.inputs.items()}
            blobs, readable = [], []
            for view, resident in self._views if len(fresh) else ():
                events_read = _read_by(view, valid)
                rows = _rows_of(view, events_read)
                entities, own_time_us, own_inputs = _of_view(
                    resident.layout, events_read, time_us, inputs, rows
                )
                own_log_us = log_us if rows is None else log_us[rows]
                newest = int(own_time_us.max(initial=0))
                readable.append(Readable(view=view.ref, newest_us=newest, logged_us=own_log_us))
                writes, too_late = resident.apply(entities, own_time_us, own_inputs, self._store.load)
                blobs.append(writes)
                metrics.EVENTS_TOO_LATE.labels(view.ref).inc(too_late)
        write = StoreWrite(
            blobs=blobs,
            seen=_by_hour(hashes[fresh], hours[fresh], still=self._seen.hours),
            forgotten_hours=sorted(set(kept_before) - set(self._seen.hours)),
            clock=self._clock.format(),
        )
        return Change(
            write=write,
            refused=events.refused,
            applied=len(fresh),
            duplicates=len(events.rows) - len(fresh),
            readable=readable,
        )

    def commit(self, change: Change, next_offset: int) -> None:
        """Write a change to the store, with the offset that follows it."""
        self.ownership = self._store.write(self.ownership, change.write, next_offset)

    def adopt(self, other: PartitionState) -> None:
        """Apply events to another's views too, from here on; it stands at the same offset."""
        self._views += other._views

    def _key_of(self, prefix: str, view_ref: str) -> Callable[[str], str]:
        head = blob_key(prefix, self.ownership.event_type, self.ownership.partition, view_ref, "")
        return lambda entity: head + entity


def _read_by(view: FeatureView, events: pa.RecordBatch) -> pa.RecordBatch:
    """Return events with their codes in the versions that a view reads."""
    read, unmapped = spoken(view, events)
    for name, number in unmapped.items():
        metrics.UNMAPPED_CODES.labels(name, view.ref).inc(number)
    return read


def _rows_of(view: FeatureView, events: pa.RecordBatch) -> Ints | None:
    """Return the rows of the events that a view is about; None: all."""
    return None if view.where is None else np.flatnonzero(matches(view.where, events))


def _of_view(
    layout: ViewLayout,
    events: pa.RecordBatch,
    time_us: Ints,
    inputs: Mapping[str, NDArray[np.float64]],
    rows: Ints | None,
) -> tuple[pa.Array, Ints, Mapping[str, NDArray[np.float64]]]:
    """Return entities, times and inputs of the events that a view is about."""
    entities = event_keys(layout.view.source, events)
    inputs = filtered_inputs(layout, events, inputs)
    if rows is None:
        return entities, time_us, inputs
    return entities.take(pa.array(rows)), time_us[rows], {name: inputs[name][rows] for name in layout.inputs}


def _by_hour(hashes: NDArray[np.uint64], hours: Ints, *, still: Sequence[int]) -> dict[int, bytes]:
    """Return the new hashes by hour, in the log's order; hours that the batch itself left behind are not kept."""
    return {
        int(hour): hashes[hours == hour].astype("<u8").tobytes()
        for hour in np.unique(hours)
        if int(hour) in still
    }
