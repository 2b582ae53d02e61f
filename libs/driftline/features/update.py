"""Put events into state rows, a batch at a time, without a Python step per event.

Exactness. Summed inputs are rounded to multiples of 2**-16 (about .000015) and squares are summed in two
parts, so float64 adds them without any rounding as long as a tile's or window's sum of absolute values
stays below 2**37 (1.4e11). Then the order of additions cannot matter. Beyond it sums round like any other.
Minima, maxima and last values are kept as they came. Registers of sketches keep the largest rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from driftline.features.layout import NEVER, TILE_LIMIT, State, ViewLayout
from driftline.features.rings import Accumulator, Measure, Ring
from driftline.features.sketches import Registers, largest_ranks

#: Sums add multiples of this.
QUANTUM = 2.0**-16
#: Squares are split here: multiples of it, and the rest.
SQUARE_SPLIT = 2.0**18
#: A larger value (or NaN, or infinity) counts as null. The feature store dead-letters such events before.
LARGEST = 2.0**100

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def apply_events(
    layout: ViewLayout, state: State, rows: Ints, event_time_us: Ints, inputs: Mapping[str, Floats]
) -> int:
    """Apply a batch of events to their rows, in place.

    Parameters
    ----------
    state
        Rows of ``layout.dtype``, one-dimensional.
    rows
        For each event the row of its entity.
    event_time_us
        For each event its time, in microseconds.
    inputs
        For each of ``layout.inputs`` the events' values; NaN is null, booleans are 0 and 1.

    Returns
    -------
    int
        How many events were too late for every window: their tiles' slots already belong to newer tiles
        (or the time is before 1970 or absurdly far ahead). They still count as events of the entity.
    """
    if not len(rows):
        return 0
    rows = np.asarray(rows, np.int64)
    base = event_time_us // layout.base_us
    low, high = int(base.min()), int(base.max())
    outside = low < 0 or high >= TILE_LIMIT
    if outside:
        base = np.clip(base, -1, TILE_LIMIT)
        low, high = max(low, -1), min(high, TILE_LIMIT)
    # One sort serves every ring: by row, then by the common divisor of their tiles.
    order = np.argsort(rows * (high - low + 1) + (base - low))
    rows, base = rows[order], base[order]
    values = {name: np.asarray(inputs[name], np.float64)[order] for name in layout.inputs}
    _apply_newest(layout, state, rows, event_time_us[order], values)
    if not layout.rings:
        return 0
    if outside:
        inside = np.flatnonzero((base >= 0) & (base < TILE_LIMIT))
        too_late = len(rows) - len(inside)
        if not len(inside):
            return too_late
        rows, base = rows[inside], base[inside]
        values = {name: column[inside] for name, column in values.items()}
    else:
        too_late = 0
    columns = accumulator_columns(layout, values, len(rows))
    late = np.ones(len(rows), np.bool_)
    for index, ring in enumerate(layout.rings):
        tile = base if ring.width_us == layout.base_us else base // (ring.width_us // layout.base_us)
        late &= _apply_ring(layout, index, state, rows=rows, tile=tile, columns=columns, values=values)
    return too_late + int(np.count_nonzero(late))


def quantise(values: Floats) -> Floats:
    """Round to multiples of 2**-16, so that sums are exact.

    >>> quantise(np.array([0.1, -2.5])) * 65536
    array([   6554., -163840.])
    """
    return np.rint(values * (1 / QUANTUM)) * QUANTUM + 0.0


def present(values: Floats) -> NDArray[np.bool_]:
    """Tell which values are there: neither null (NaN) nor beyond all measure."""
    return np.abs(values) <= LARGEST


def accumulator_columns(
    layout: ViewLayout, values: Mapping[str, Floats], length: int
) -> dict[Accumulator, Floats]:
    """Return for each accumulator of the layout what each event brings to it."""
    columns: dict[Accumulator, Floats] = {}
    wanted = {item for ring in layout.rings for item in ring.accumulators}
    for name in sorted({item.field for item in wanted}):
        if not name:
            columns[Accumulator(Measure.COUNT, "")] = np.ones(length)
            continue
        there = present(values[name])
        # Adding zero turns -0.0 to 0.0: the two are equal, but not the same bytes.
        raw = np.where(there, values[name], 0.0) + 0.0
        exact = quantise(raw)
        columns[Accumulator(Measure.COUNT, name)] = there.astype(np.float64)
        columns[Accumulator(Measure.SUM, name)] = exact
        if (low := Accumulator(Measure.SQUARE_LOW, name)) in wanted:
            square = quantise(exact * exact)
            high = np.rint(square * (1 / SQUARE_SPLIT)) * SQUARE_SPLIT
            columns[Accumulator(Measure.SQUARE_HIGH, name)] = high
            columns[low] = square - high
        columns[Accumulator(Measure.MIN, name)] = np.where(there, raw, np.inf)
        columns[Accumulator(Measure.MAX, name)] = np.where(there, raw, -np.inf)
    return columns


def _apply_newest(
    layout: ViewLayout, state: State, rows: Ints, time_us: Ints, values: Mapping[str, Floats]
) -> None:
    """Update each row's newest event time, number of events and last values. Rows come sorted."""
    starts = _run_starts(rows)
    touched = rows[starts]
    sizes = np.diff(starts, append=len(rows))
    newest = state["newest"]
    newest[touched] = np.maximum(newest[touched], np.maximum.reduceat(time_us, starts))
    state["events"][touched] += sizes
    for index, name in enumerate(layout.lasts):
        column = values[name]
        there = present(column)
        when = np.where(there, time_us, NEVER)
        latest = np.maximum.reduceat(when, starts)
        at_latest = there & (when == np.repeat(latest, sizes))
        # Of equal times the larger value counts.
        value = np.maximum.reduceat(np.where(at_latest, column + 0.0, -np.inf), starts)
        held_time, held_value = state["last_time"][touched, index], state["last_value"][touched, index]
        wins = (latest > held_time) | ((latest == held_time) & (latest != NEVER) & (value > held_value))
        state["last_time"][touched[wins], index] = latest[wins]
        state["last_value"][touched[wins], index] = value[wins]


def _apply_ring(
    layout: ViewLayout,
    index: int,
    state: State,
    *,
    rows: Ints,
    tile: Ints,
    columns: Mapping[Accumulator, Floats],
    values: Mapping[str, Floats],
) -> NDArray[np.bool_]:
    """Merge events, sorted by row and tile, into one ring; return which events came too late for it."""
    ring = layout.rings[index]
    starts = _run_starts(rows, tile)
    sizes = np.diff(starts, append=len(rows))
    row, number = rows[starts], tile[starts]
    slot = number % ring.slots
    tiles, accumulators = state[f"tiles_{index}"], state[f"acc_{index}"]
    held = tiles[row, slot]
    late = number < held
    brought = np.empty((len(starts), len(ring.accumulators)))
    for column, item in enumerate(ring.accumulators):
        if item == Accumulator(Measure.COUNT, ""):
            brought[:, column] = sizes
        else:
            brought[:, column] = _REDUCE.get(item.measure, np.add).reduceat(columns[item], starts)
    wins = ~late
    if int(number.max()) - int(number.min()) >= ring.slots:
        wins &= _largest_of_slot(row * ring.slots + slot)
    ranks = _brought_ranks(ring, values, sizes) if ring.sketches else None
    if not wins.all():
        row, slot, number, held, brought = row[wins], slot[wins], number[wins], held[wins], brought[wins]
        ranks = None if ranks is None else ranks[wins]
    kept = accumulators[row, slot]
    kept[number > held] = layout.neutral[index]
    combine(ring, kept, brought, out=kept)
    accumulators[row, slot] = kept
    tiles[row, slot] = number
    if ranks is not None:
        registers = state[f"registers_{index}"]
        known = registers[row, slot]
        known[number > held] = 0
        registers[row, slot] = np.maximum(known, ranks)
    return np.repeat(late, sizes)


def _brought_ranks(ring: Ring, values: Mapping[str, Floats], sizes: NDArray[np.intp]) -> Registers:
    """Return what the events of each run, of these sizes, bring to the registers of a ring's sketches."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    brought = [largest_ranks(values[item.field], group, len(sizes), item.registers) for item in ring.sketches]
    return np.concatenate(brought, axis=1)


_REDUCE = {Measure.MIN: np.minimum, Measure.MAX: np.maximum}


def combine(ring: Ring, left: Floats, right: Floats, *, out: Floats) -> None:
    """Merge accumulators, the last axis, of two parts: sums add, extremes compare."""
    sums, minima = ring.additive, ring.additive + ring.minima
    if sums == len(ring.accumulators):
        np.add(left, right, out=out)
        return
    np.add(left[..., :sums], right[..., :sums], out=out[..., :sums])
    np.minimum(left[..., sums:minima], right[..., sums:minima], out=out[..., sums:minima])
    np.maximum(left[..., minima:], right[..., minima:], out=out[..., minima:])


def merge(layout: ViewLayout, left: State, right: State) -> State:
    """Return rows that hold the events of both, row by row. Commutative and associative, to the bit."""
    return merge_parts(layout, np.stack([left, right], axis=1))


def merge_parts(layout: ViewLayout, parts: State) -> State:
    """Merge the second axis of rows ``[n, parts]``, an entity's parts in several partitions, into ``[n]``."""
    if parts.shape[1] == 1:
        return parts[:, 0]
    merged = layout.empty(len(parts))
    merged["newest"] = parts["newest"].max(axis=1)
    merged["events"] = parts["events"].sum(axis=1)
    if layout.lasts:
        latest = parts["last_time"].max(axis=1)
        at_latest = parts["last_time"] == latest[:, None]
        merged["last_time"] = latest
        merged["last_value"] = np.where(at_latest, parts["last_value"], -np.inf).max(axis=1)
    for index, ring in enumerate(layout.rings):
        tiles, held = parts[f"tiles_{index}"], parts[f"acc_{index}"]
        # As in one row, a slot belongs to the largest tile that any part has put there. Most slots that
        # differ are empty ones, which are neutral already; the others are made so.
        numbers = tiles.max(axis=1)
        total = merged[f"acc_{index}"]  # a view of neutral values
        for part in range(parts.shape[1]):
            brought, older = held[:, part], (tiles[:, part] >= 0) & (tiles[:, part] < numbers)
            if older.any():
                brought = brought.copy()
                brought[older] = layout.neutral[index]
            combine(ring, total, brought, out=total)
        merged[f"tiles_{index}"] = numbers
        if ring.sketches:
            ranks = parts[f"registers_{index}"]
            # An empty slot has no ranks, so only those of older tiles are left out.
            newest = (tiles == numbers[:, None])[..., None]
            merged[f"registers_{index}"] = np.where(newest, ranks, np.uint8(0)).max(axis=1)
    return merged


def _run_starts(*keys: Ints) -> NDArray[np.intp]:
    """Return where runs of equal keys start."""
    changes = np.zeros(len(keys[0]), np.bool_)
    changes[0] = True
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changes)


def _largest_of_slot(key: Ints) -> NDArray[np.bool_]:
    """Mark the last of each equal key; groups come in the order of their tiles, so it is the largest tile."""
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    marks = np.zeros(len(key), np.bool_)
    marks[order[last]] = True
    return marks
