"""The totals of windows for a point-in-time join: steps 2 and 3 of ``point_in_time``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.features.decay import decayed_totals
from driftline.features.history import History, Positions
from driftline.features.layout import NEVER, TILE_LIMIT
from driftline.features.read import window_totals
from driftline.features.rings import Accumulator, Measure, Ring
from driftline.features.sketches import estimate, rank_powers, sketch_ranks
from driftline.features.update import QUANTUM, SQUARE_SPLIT, accumulator_columns, apply_events

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

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
_EXTREMES = {Measure.MIN: (np.minimum, np.inf), Measure.MAX: (np.maximum, -np.inf)}


def fill_totals(history: History, row_entity: Ints, as_of_us: Ints, *, newest: Ints, totals: Floats) -> None:
    """Fill the window totals ``[n, C]`` of all rows: step 2 for the plain ones, step 3 for the others."""
    layout = history.layout
    positions = Positions(history.entity, history.time_us)
    until = positions.through(row_entity, np.minimum(as_of_us, _last_instant(layout.base_us)))
    earliest = until
    columns = accumulator_columns(layout, history.values, len(history.time_us))
    running = {item: _running_sum(item, column) for item, column in columns.items() if item.measure in _UNITS}
    exact = all(sums is not None for sums in running.values())
    column = 0
    for ring in layout.rings:
        before = _tile_before(ring, as_of_us)
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


def _tile_before(ring: Ring, as_of_us: Ints) -> Ints:
    """Return for each instant and window the tile before the window's first ``[n, windows]``."""
    current = np.minimum(np.maximum(as_of_us // ring.width_us, -1), TILE_LIMIT + 2048)
    before: Ints = np.maximum(current[:, None] - np.array(ring.windows_us, np.int64) // ring.width_us, -1)
    return before


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
    history: History,
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
    history: History, as_of_us: Ints, start: NDArray[np.intp], stop: NDArray[np.intp]
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
