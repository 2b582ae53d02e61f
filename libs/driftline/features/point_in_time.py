"""Feature values for a training set: what the online store would have answered at each row's instant.

The state of an entity is a function of the set of its events (see ``layout``), and an event is in the set
as of ``t`` if it was known at ``t``. So values come straight from the events, whole columns at a time:

1. The newest event and the last values as of ``t`` are running maxima over the events in the order in
   which they became known.
2. The windows of a *plain* row, one whose window holds only events that were known by then, are
   differences of running sums (in integers, so exact), and minima and maxima of slices.
3. The windows of the other rows (an event was still unknown, or one was known ahead of its time) come from
   the store's own kernels, fed with the events that each row may know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.features.decay import decayed_totals
from driftline.features.declarations import FeatureView
from driftline.features.event_columns import event_keys, micros, one_array
from driftline.features.layout import NEVER, TILE_LIMIT, ViewLayout
from driftline.features.matching import layout_inputs, matches
from driftline.features.read import ViewValues, finalize, window_tiles, window_totals
from driftline.features.rings import Accumulator, Measure, Ring
from driftline.features.sketches import estimate, rank_powers, sketch_ranks
from driftline.features.update import QUANTUM, SQUARE_SPLIT, accumulator_columns, apply_events, present

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_Number = TypeVar("_Number", np.int64, np.float64)

#: Step 3 takes at most so many rows, and about so many events, at a time.
_CHUNK_ROWS, _CHUNK_EVENTS = 10_000, 500_000
#: Tiles of decayed features are laid out for so many rows at a time.
_DENSE_ROWS = 4_096
#: Ranks are laid out for so many registers at a time, a byte for each event.
_REGISTERS_AT_ONCE = 16
_LAST_INSTANT = int(np.iinfo(np.int64).max)
#: Running sums are kept in units of the smallest part that each measure has. They may wrap: differences don't.
_UNITS = {
    Measure.COUNT: 1.0,
    Measure.SUM: QUANTUM,
    Measure.SQUARE_LOW: QUANTUM,
    Measure.SQUARE_HIGH: SQUARE_SPLIT,
}
_LARGEST_UNITS = 2.0**52
_LARGEST_NUMBER = 2**62
_EXTREMES = {Measure.MIN: (np.minimum, np.inf), Measure.MAX: (np.maximum, -np.inf)}


def as_of_join(
    view: FeatureView,
    events: pa.Table | pa.RecordBatch,
    keys: Sequence[str | None] | pa.Array,
    as_of_us: Ints,
    *,
    known_at: str | None = None,
    entities: str | None = None,
) -> ViewValues:
    """Return a view's values for entities, each as of an instant.

    Bit for bit what the store answers that was fed with the events in the order in which they became known.

    Parameters
    ----------
    events
        The source's events, in any order, each once. Those without an entity or a time are left out, and those
        that the view's condition leaves out.
    keys
        The key of each row's entity (a composite one's as ``entity_keys.join_key`` makes it).
    as_of_us
        The instant of each row, in microseconds.
    known_at
        Column with the instant from which an event was known; the event time unless said.
    entities
        Column with the key of each event's entity; what the source's fields say unless said.
    """
    layout = ViewLayout.of(view)
    history, row_entity = _history(layout, events, keys, known_at=known_at, entities=entities)
    # Rows in the order of the events: what they search for lies side by side.
    order = np.lexsort((np.asarray(as_of_us, np.int64), row_entity))
    as_of, row_entity = np.asarray(as_of_us, np.int64)[order], row_entity[order]
    totals = np.empty((len(as_of), sum(len(r.windows_us) * r.columns for r in layout.rings)))
    newest = history.running_newest(row_entity, as_of)
    last_value, last_time = history.lasts(row_entity, as_of)
    if layout.rings:
        _fill_totals(history, row_entity, as_of, newest=newest, totals=totals)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return finalize(
        layout,
        totals=totals[back],
        last_value=last_value[back],
        last_time=last_time[back],
        newest=newest[back],
        as_of_us=as_of[back],
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _History:
    """Events sorted by entity (a number) and event time."""

    layout: ViewLayout
    entity: Ints
    time_us: Ints
    known_us: Ints
    values: Mapping[str, Floats]

    def running_newest(self, row_entity: Ints, as_of_us: Ints) -> Ints:
        """Return the newest event time that each row knows of."""
        found = _largest_known(self.entity, self.known_us, row_entity, as_of_us)
        return _taken(self.time_us, found, NEVER)

    def lasts(self, row_entity: Ints, as_of_us: Ints) -> tuple[Floats, Ints]:
        """Return value and event time of the newest event with each field, that each row knows of."""
        shape = (len(as_of_us), len(self.layout.lasts))
        last_value, last_time = np.empty(shape), np.empty(shape, np.int64)
        for index, name in enumerate(self.layout.lasts):
            there = np.flatnonzero(present(self.values[name]))
            value = self.values[name][there] + 0.0
            # Of equal times the larger value counts, so it comes later.
            order = np.lexsort((value, self.time_us[there], self.entity[there]))
            chosen = there[order]
            found = _largest_known(self.entity[chosen], self.known_us[chosen], row_entity, as_of_us)
            last_value[:, index] = _taken(value[order], found, np.nan)
            last_time[:, index] = _taken(self.time_us[chosen], found, NEVER)
        return last_value, last_time


def _history(
    layout: ViewLayout,
    events: pa.Table | pa.RecordBatch,
    keys: Sequence[str | None] | pa.Array,
    *,
    known_at: str | None,
    entities: str | None,
) -> tuple[_History, Ints]:
    """Number the entities that are asked for, and sort those of their events that the view is about."""
    source = layout.view.source
    asked = one_array(keys) if isinstance(keys, pa.Array | pa.ChunkedArray) else pa.array(keys, pa.string())
    asked = asked.cast(pa.string())
    numbered = asked.drop_null().unique()
    row_entity = pc.index_in(asked, numbered).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if isinstance(events, pa.RecordBatch):
        events = pa.Table.from_batches([events])
    known_column = known_at or source.event_time
    conditions = [item.condition for item in layout.made if item.condition is not None]
    asked_of = {name for condition in conditions for name in condition.fields}
    texts = {item.field for item in layout.made if item.reads_text}
    named = {source.event_time, known_column, *layout.fields, *asked_of, *texts}
    said = event_keys(source, events) if entities is None else one_array(events.column(entities))
    field = said.cast(pa.string())
    counts = pc.is_in(field, numbered)
    for name in (source.event_time, known_column):
        counts = pc.and_(counts, one_array(events.column(name)).is_valid())
    if layout.view.where is not None:
        counts = pc.and_(counts, pa.array(matches(layout.view.where, events)))
    events = events.select(sorted(named)).filter(counts)
    entity = pc.index_in(field.filter(counts), numbered).to_numpy(zero_copy_only=False).astype(np.int64)
    time_us = micros(events.column(source.event_time))
    order = np.lexsort((time_us, entity))
    history = _History(
        layout=layout,
        entity=entity[order],
        time_us=time_us[order],
        known_us=micros(events.column(known_column))[order],
        values={name: column[order] for name, column in layout_inputs(layout, events).items()},
    )
    return history, row_entity


class _Positions:
    """Finds positions in events that are sorted by entity and an instant.

    An entity and an instant are one sortable number: one search finds a position, and finds it fast where what
    is asked for is sorted in the same way.
    """

    def __init__(self, entity: Ints, instant_us: Ints) -> None:
        low, high = (int(instant_us.min()), int(instant_us.max())) if len(instant_us) else (0, 0)
        entities = int(entity.max(initial=0)) + 1
        self._instants: Ints | None = None
        if max(-low, high, entities * (high - low + 2)) > _LARGEST_NUMBER:
            # So many entities and years do not fit: the instants' ranks do.
            self._instants = np.unique(instant_us)
            instant_us = np.searchsorted(self._instants, instant_us)
            low, high = 0, len(self._instants) - 1
        self._low, self._high, self._step = low, high, high - low + 2
        self._sorted = entity * self._step + (instant_us - low)

    def before(self, entity: Ints, instant_us: Ints) -> NDArray[np.intp]:
        """Return for each entity the position of its first event at or after an instant."""
        if self._instants is not None:
            instant_us = np.searchsorted(self._instants, instant_us)
        return self._position(entity, np.clip(instant_us, self._low, self._high + 1))

    def through(self, entity: Ints, instant_us: Ints) -> NDArray[np.intp]:
        """Return for each entity the position after its last event at or before an instant."""
        if self._instants is not None:
            return self._position(entity, np.searchsorted(self._instants, instant_us, side="right"))
        return self._position(entity, np.clip(instant_us, self._low - 1, self._high) + 1)

    def _position(self, entity: Ints, first: Ints) -> NDArray[np.intp]:
        return np.searchsorted(self._sorted, entity * self._step + (first - self._low))


def _largest_known(entity: Ints, known_us: Ints, row_entity: Ints, as_of_us: Ints) -> NDArray[np.intp]:
    """Return the last position, in order, of an event of the row's entity that it knows of; -1 if none."""
    by_known = np.lexsort((known_us, entity))
    # Positions of an entity are all larger than those of the entities before: one running maximum does.
    running = np.maximum.accumulate(by_known) if len(by_known) else by_known
    positions = _Positions(entity[by_known], known_us[by_known])
    until = positions.through(row_entity, as_of_us)
    first = np.searchsorted(entity, row_entity)
    found = np.full(len(row_entity), -1, np.intp)
    some = until > first
    found[some] = running[until[some] - 1]
    return found


def _taken(values: NDArray[_Number], positions: NDArray[np.intp], nothing: float) -> NDArray[_Number]:
    """Return values at positions; ``nothing`` where a position is -1."""
    return np.append(values, np.array([nothing], values.dtype))[positions]


def _fill_totals(
    history: _History, row_entity: Ints, as_of_us: Ints, *, newest: Ints, totals: Floats
) -> None:
    """Fill the window totals ``[n, C]`` of all rows: step 2 for the plain ones, step 3 for the others."""
    layout = history.layout
    positions = _Positions(history.entity, history.time_us)
    until = positions.through(row_entity, np.minimum(as_of_us, _last_instant(layout.base_us)))
    earliest = until
    columns = accumulator_columns(layout, history.values, len(history.time_us))
    running = {item: _running_sum(item, column) for item, column in columns.items() if item.measure in _UNITS}
    exact = all(sums is not None for sums in running.values())
    column = 0
    for ring in layout.rings:
        _, before = window_tiles(ring.width_us, ring.windows_us, as_of_us)
        first = np.minimum(before + 1, _LAST_INSTANT // ring.width_us) * ring.width_us
        for window in range(len(ring.windows_us)):
            start = np.minimum(positions.before(row_entity, first[:, window]), until)
            earliest = np.minimum(earliest, start)
            out = totals[:, column : column + ring.columns]
            if ring.half_life_us is None:
                _fill_window(ring, columns, running, start, until, out=out)
                _fill_estimates(ring, history.values, start, until, out=out[:, len(ring.accumulators) :])
            elif exact:
                _fill_decayed(history, ring, running, as_of_us, start, until, out=out)
            column += ring.columns
    latest_known = np.full(len(as_of_us), NEVER)
    _slice_extremes(np.maximum, history.known_us, earliest, until, out=latest_known)
    plain = (latest_known <= as_of_us) & (newest <= as_of_us) & exact
    others = np.flatnonzero(~plain)
    ahead = positions.through(row_entity[others], np.maximum(newest[others], as_of_us[others]))
    for rows, start, stop in _chunks(others, earliest[others], ahead):
        totals[rows] = _kernel_totals(history, as_of_us[rows], start, stop)


def _fill_window(
    ring: Ring,
    columns: Mapping[Accumulator, Floats],
    running: Mapping[Accumulator, Ints | None],
    start: NDArray[np.intp],
    until: NDArray[np.intp],
    *,
    out: Floats,
) -> None:
    """Fill the totals of one window, whose events are a slice for each row."""
    for place, item in enumerate(ring.accumulators):
        if item.measure in _UNITS:
            sums = running[item]
            out[:, place] = 0.0 if sums is None else (sums[until] - sums[start]) * _UNITS[item.measure]
        else:
            extreme, nothing = _EXTREMES[item.measure]
            out[:, place] = nothing
            _slice_extremes(extreme, columns[item], start, until, out=out[:, place])


def _fill_estimates(
    ring: Ring,
    values: Mapping[str, Floats],
    start: NDArray[np.intp],
    until: NDArray[np.intp],
    *,
    out: Floats,
) -> None:
    """Fill the estimates of one window from the largest ranks of each row's slice, a few registers at a time."""
    for place, sketch in enumerate(ring.sketches):
        codes = values[sketch.field]
        there = np.flatnonzero(~np.isnan(codes))
        register, rank = sketch_ranks(codes[there], sketch.registers)
        powers, empty = np.zeros(len(start)), np.zeros(len(start), np.intp)
        for first in range(0, sketch.registers, _REGISTERS_AT_ONCE):
            own = np.flatnonzero((register >= first) & (register < first + _REGISTERS_AT_ONCE))
            ranks = np.zeros((len(codes), _REGISTERS_AT_ONCE), np.uint8)
            ranks[there[own], register[own] - first] = rank[own]
            union = np.zeros((len(start), _REGISTERS_AT_ONCE), np.uint8)
            _slice_extremes(np.maximum, ranks, start, until, out=union)
            powers += rank_powers(union).sum(axis=1)
            empty += np.count_nonzero(union == 0, axis=1)
        out[:, place] = estimate(powers, empty, sketch.registers)


def _fill_decayed(
    history: _History,
    ring: Ring,
    running: Mapping[Accumulator, Ints | None],
    as_of_us: Ints,
    start: NDArray[np.intp],
    until: NDArray[np.intp],
    *,
    out: Floats,
) -> None:
    """Fill the weighed sums of rows: lay out each row's tiles as the store keeps them, and read them as it does."""
    tile = history.time_us // ring.width_us
    changed = (np.diff(tile) != 0) | (np.diff(history.entity) != 0)
    runs = np.append(np.flatnonzero(np.concatenate([[True], changed])), len(tile)) if len(tile) else until[:0]
    first, last = np.searchsorted(runs, start), np.searchsorted(runs, until)
    for rows in np.array_split(np.arange(len(out)), len(out) // _DENSE_ROWS + 1):
        sizes = last[rows] - first[rows]
        row = np.repeat(np.arange(len(rows)), sizes)
        run = np.arange(len(row)) + np.repeat(first[rows] - (np.cumsum(sizes) - sizes), sizes)
        begin, end = runs[run], np.minimum(runs[run + 1], np.repeat(until[rows], sizes))
        slot = tile[begin] % ring.slots
        tiles = np.full((len(rows), ring.slots), -1, np.int32)
        tiles[row, slot] = tile[begin]
        sums = np.zeros((len(rows), ring.slots, len(ring.accumulators)))
        for place, item in enumerate(ring.accumulators):
            total = running[item]
            if total is not None:
                sums[row, slot, place] = (total[end] - total[begin]) * _UNITS[item.measure]
        out[rows] = decayed_totals(ring, tiles, sums, as_of_us[rows])


def _last_instant(base_us: int) -> int:
    """Return the last event time that is in any window (see TILE_LIMIT)."""
    return min(TILE_LIMIT * base_us - 1, _LAST_INSTANT)


def _running_sum(item: Accumulator, column: Floats) -> Ints | None:
    """Return exact sums of all prefixes, in units; None where a value is too large for that."""
    units = column * (1 / _UNITS[item.measure])
    if len(units) and np.abs(units).max() > _LARGEST_UNITS:
        return None
    return np.concatenate([[0], np.cumsum(units.astype(np.int64))])


def _slice_extremes(
    extreme: np.ufunc,
    column: NDArray[Any],
    start: NDArray[np.intp],
    stop: NDArray[np.intp],
    *,
    out: NDArray[Any],
) -> None:
    """Write to ``out`` the extreme of each slice that is not empty.

    A slice is covered by two blocks of 2**k elements; level k holds the extremes of all such blocks (a
    "sparse table", one level at a time).
    """
    length = stop - start
    longest, size, level = int(length.max(initial=0)), 1, column
    while size <= longest:
        fits = np.flatnonzero((length >= size) & (length < 2 * size))
        out[fits] = extreme(level[start[fits]], level[stop[fits] - size])
        level = extreme(level[:-size], level[size:])
        size *= 2


def _chunks(
    rows: NDArray[np.intp], start: NDArray[np.intp], stop: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]]:
    """Yield rows and their slices of events, a bounded number of rows and (where one row allows) of events at a time."""
    ends = np.cumsum(stop - start)
    taken = 0
    while taken < len(rows):
        done = int(ends[taken - 1]) if taken else 0
        upto = min(int(np.searchsorted(ends, done + _CHUNK_EVENTS, side="right")), taken + _CHUNK_ROWS)
        upto = max(upto, taken + 1)
        yield rows[taken:upto], start[taken:upto], stop[taken:upto]
        taken = upto


def _kernel_totals(
    history: _History, as_of_us: Ints, start: NDArray[np.intp], stop: NDArray[np.intp]
) -> Floats:
    """Give each row a state of its own, feed it the events of its slice that it may know, and read it."""
    sizes = stop - start
    rows = np.repeat(np.arange(len(sizes)), sizes)
    events = np.arange(len(rows)) + np.repeat(start - (np.cumsum(sizes) - sizes), sizes)
    known = history.known_us[events] <= as_of_us[rows]
    rows, events = rows[known], events[known]
    values = {name: column[events] for name, column in history.values.items()}
    state = history.layout.empty(len(sizes))
    apply_events(history.layout, state, rows, history.time_us[events], values)
    return window_totals(history.layout, state, as_of_us)
