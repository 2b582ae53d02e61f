"""Read feature values out of state rows, as of an instant: windows are merged from tiles at read time.

A window ``W`` as of ``t`` covers the tiles ``(t // width - W / width, t // width]``: never older than ``W``,
and its far edge moves in steps of a tile's width. No event means: a count and a sum of 0, and null for
all else. ``last`` and ``time_since_last`` look at the newest event that the row holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from driftline.features.aggregations import Aggregate
from driftline.features.decay import decayed_totals
from driftline.features.declarations import OnStale
from driftline.features.derivations import evaluate
from driftline.features.layout import NEVER, TILE_LIMIT, Derivation, Recipe, State, ViewLayout
from driftline.features.rings import Ring
from driftline.features.sketches import Registers, estimated_counts
from driftline.features.update import merge_parts

#: Registers are merged for so many rows at a time.
_SKETCHED_ROWS = 512

FRESH, STALE, MISSING = 0, 1, 2
#: Nobody knows: the online store was not there to say.
DEGRADED = 3

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewValues:
    """The values of a view for some entities.

    Attributes
    ----------
    values
        One row per entity, one column per feature in declared order; NaN is null.
    age_us
        Age of the entity's newest event, not below 0; -1 for an entity without events.
    status
        FRESH, STALE (older than the view's time-to-live) or MISSING (no events), whatever was served; DEGRADED where
        the store could not be asked.
    """

    values: Floats
    age_us: Ints
    status: NDArray[np.uint8]


def read_state(layout: ViewLayout, state: State, as_of_us: Ints) -> ViewValues:
    """Read rows as of an instant each.

    ``state`` has one row per entity, or a second axis of parts (one per partition), which are merged.
    """
    rows = state if state.ndim == 1 else merge_parts(layout, state)
    as_of = np.asarray(as_of_us, np.int64)
    nothing = (len(rows), 0)
    return finalize(
        layout,
        totals=window_totals(layout, rows, as_of),
        last_value=rows["last_value"] if layout.lasts else np.empty(nothing),
        last_time=rows["last_time"] if layout.lasts else np.empty(nothing, np.int64),
        newest=rows["newest"],
        as_of_us=as_of,
    )


def window_tiles(width_us: int, windows_us: tuple[int, ...], as_of_us: Ints) -> tuple[Ints, Ints]:
    """Return for each instant the current tile ``[n]`` and, per window, the tile before its first ``[n, W]``."""
    current = np.minimum(np.maximum(as_of_us // width_us, -1), TILE_LIMIT + 2048)
    return current, np.maximum(current[:, None] - _lengths(width_us, windows_us), -1)


@lru_cache(maxsize=1024)
def _lengths(width_us: int, windows_us: tuple[int, ...]) -> Ints:
    """Return how many tiles each window has."""
    return np.array(windows_us, np.int64) // width_us


def window_totals(layout: ViewLayout, state: State, as_of_us: Ints) -> Floats:
    """Return rows' totals over each ring's windows: ``[n, C]``, as ``finalize`` takes them."""
    totals = [_ring_totals(layout, index, state, as_of_us) for index in range(len(layout.rings))]
    return np.concatenate(totals, axis=1) if totals else np.empty((len(state), 0))


def _ring_totals(layout: ViewLayout, index: int, state: State, as_of_us: Ints) -> Floats:
    """Return what is read of each window of a ring: ``[n, windows * totals]``."""
    ring = layout.rings[index]
    windows, width = len(ring.windows_us), len(ring.accumulators)
    tiles, accumulators = state[f"tiles_{index}"], state[f"acc_{index}"]
    if ring.half_life_us is not None:
        return decayed_totals(ring, tiles, accumulators, as_of_us)
    current, before = window_tiles(ring.width_us, ring.windows_us, as_of_us)
    inside = tiles[:, None, :] > before[:, :, None].astype(np.int32)
    inside &= (tiles <= current[:, None].astype(np.int32))[:, None, :]
    totals = np.empty((len(state), windows, ring.columns))
    sums, minima = ring.additive, ring.additive + ring.minima
    # Sums are exact, so a matrix product may add them in any order.
    totals[..., :sums] = inside.astype(np.float64) @ accumulators[..., :sums]
    for start, stop, extreme, neutral in ((sums, minima, np.min, np.inf), (minima, width, np.max, -np.inf)):
        if start < stop:
            masked = np.where(inside[..., None], accumulators[:, None, :, start:stop], neutral)
            totals[..., start:stop] = extreme(masked, axis=2)
    if ring.sketches:
        _fill_estimates(ring, state[f"registers_{index}"], inside, out=totals[..., width:])
    return totals.reshape(len(state), windows * ring.columns)


def _fill_estimates(ring: Ring, registers: Registers, inside: NDArray[np.bool_], *, out: Floats) -> None:
    """Write the estimates of a ring's sketches ``[n, windows, sketches]``, a bounded number of rows at a time."""
    for start in range(0, len(registers), _SKETCHED_ROWS):
        rows = slice(start, start + _SKETCHED_ROWS)
        for window in range(inside.shape[1]):
            covered = inside[rows, window, :, None].view(np.uint8)
            union = (registers[rows] * covered).max(axis=1)
            first = 0
            for place, sketch in enumerate(ring.sketches):
                after = first + sketch.registers
                out[rows, window, place] = estimated_counts(union[:, first:after])
                first = after


def finalize(
    layout: ViewLayout, *, totals: Floats, last_value: Floats, last_time: Ints, newest: Ints, as_of_us: Ints
) -> ViewValues:
    """Turn totals into feature values: defaults, the time-to-live, formulas. Shared with the offline join.

    Parameters
    ----------
    totals
        ``[n, C]``: for each ring, each window, each of ``Ring.totals`` one column.
    last_value, last_time
        ``[n, L]``: newest value of each of ``layout.lasts`` and its event time (NEVER if there is none).
    newest
        ``[n]``: newest event time (NEVER if there is none).
    """
    missing = newest == NEVER
    age = np.maximum(as_of_us - newest, 0)
    age[missing] = -1  # what overflowed
    values = np.empty((len(newest), len(layout.defaults)))
    for recipe in layout.recipes:
        if recipe.aggregate is Aggregate.LAST:
            taken = recipe.sources[0]
            values[:, recipe.out] = np.where(last_time[:, taken] == NEVER, np.nan, last_value[:, taken])
        elif recipe.aggregate is Aggregate.TIME_SINCE_LAST and recipe.sources:
            when = last_time[:, recipe.sources[0]]
            never = when == NEVER
            since = np.maximum(as_of_us[:, None] - np.where(never, 0, when), 0) / 1e6
            values[:, recipe.out] = np.where(never, np.nan, since)
        elif recipe.aggregate is Aggregate.TIME_SINCE_LAST:
            values[:, recipe.out] = np.where(missing, np.nan, age / 1e6)[:, None]
        else:
            values[:, recipe.out] = _windowed(recipe, totals)
    # Not np.copyto(where=isnan) on everything: most views declare no default.
    if _has_defaults(layout):
        values = np.where(np.isnan(values), layout.defaults, values)
    status = missing.astype(np.uint8) * np.uint8(MISSING)  # or FRESH
    if layout.view.ttl_us is not None:
        stale = age > layout.view.ttl_us
        status[stale] = STALE
        if layout.view.on_stale is OnStale.DEFAULT:
            values[stale] = layout.defaults
    for derivation in layout.derivations:
        values[:, derivation.out] = _derived(derivation, values)
    return ViewValues(values=values, age_us=age, status=status)


@lru_cache(maxsize=1024)
def _has_defaults(layout: ViewLayout) -> bool:
    return not np.isnan(layout.defaults).all()


def _derived(derivation: Derivation, values: Floats) -> Floats:
    found = evaluate(derivation.expression, lambda name: values[:, derivation.places[name]])
    return np.where(np.isnan(found), derivation.default, found)


def _windowed(recipe: Recipe, totals: Floats) -> Floats:
    taken = [totals.take(source, axis=1) for source in recipe.sources]
    match recipe.aggregate:
        case Aggregate.MIN | Aggregate.MAX:
            return np.where(np.isinf(taken[0]), np.nan, taken[0])
        case Aggregate.MEAN | Aggregate.RATE | Aggregate.SHARE | Aggregate.DECAYED_MEAN:
            total, count = taken
            return total / np.where(count == 0, np.nan, count)
        case Aggregate.MOST_FREQUENT:
            counts = np.stack(taken)
            return np.where(counts.any(axis=0), counts.argmax(axis=0), np.nan)
        case Aggregate.STD:
            high, low, total, count = taken
            some = np.where(count == 0, np.nan, count)
            variance: Floats = (high + low - total * (total / some)) / some
            return np.sqrt(np.maximum(variance, 0.0))
        case _:
            return taken[0]


def same_bits(left: Floats, right: Floats) -> NDArray[np.bool_]:
    """Compare values as bits (so that -0.0 is not 0.0); null equals null.

    >>> same_bits(np.array([1.0, 0.0, np.nan]), np.array([1.0, -0.0, np.nan])).tolist()
    [True, False, True]
    """
    bits = (np.ascontiguousarray(one, np.float64).view(np.int64) for one in (left, right))
    same: NDArray[np.bool_] = np.equal(*bits)
    return same | (np.isnan(left) & np.isnan(right))
