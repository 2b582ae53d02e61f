"""Read feature values out of state rows, as of an instant: windows are merged from tiles at read time.

A window ``W`` as of ``t`` covers the tiles ``(t // width - W / width, t // width]``: never older than ``W``,
and its far edge moves in steps of a tile's width. No event means: a count and a sum of 0, and null for
all else. ``last`` and ``time_since_last`` look at the newest event that the row holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from driftline.features.decay import decayed_totals
from driftline.features.declarations import OnStale
from driftline.features.derivations import evaluate
from driftline.features.formulas import Formulas
from driftline.features.layout import NEVER, Derivation, State, ViewLayout
from driftline.features.rings import Ring
from driftline.features.sketches import Registers, estimated_counts
from driftline.features.update import merge_parts

#: Registers are merged for so many rows at a time.
_SKETCHED_ROWS = 512

FRESH, STALE, MISSING = 0, 1, 2
# Constants are arrays: numpy would make one of a number at every read.
_OUTSIDE = np.array([np.inf, 0.0])
_NO_TIME, _NEVER = np.array(0), np.array(NEVER)
_STATUS = np.array([FRESH, MISSING], np.uint8)
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
    defaulted
        Which values are declared defaults, served for want of others, in the form of ``values``; None: none can be.
    """

    values: Floats
    age_us: Ints
    status: NDArray[np.uint8]
    defaulted: NDArray[np.bool_] | None = None

    def take(self, rows: NDArray[np.intp]) -> ViewValues:
        """Return the values at these rows."""
        defaulted = None if self.defaulted is None else self.defaulted[rows]
        return ViewValues(
            values=self.values[rows],
            age_us=self.age_us[rows],
            status=self.status[rows],
            defaulted=defaulted,
        )


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


def window_totals(layout: ViewLayout, state: State, as_of_us: Ints) -> Floats:
    """Return rows' totals over each ring's windows: ``[n, C]``, as ``finalize`` takes them."""
    totals = [_ring_totals(layout, index, state, as_of_us) for index in range(len(layout.rings))]
    if len(totals) == 1:
        return totals[0]
    return np.concatenate(totals, axis=1) if totals else np.empty((len(state), 0))


def _ring_totals(layout: ViewLayout, index: int, state: State, as_of_us: Ints) -> Floats:
    """Return what is read of each window of a ring: ``[n, windows * totals]``."""
    ring = layout.rings[index]
    windows, width = len(ring.windows_us), len(ring.accumulators)
    tiles, accumulators = state[f"tiles_{index}"], state[f"acc_{index}"]
    if ring.half_life_us is not None:
        return decayed_totals(ring, tiles, accumulators, as_of_us)
    inside = _inside(ring, tiles, as_of_us)
    totals = np.empty((len(state), windows, ring.columns))
    sums, minima = ring.additive, ring.additive + ring.minima
    # Sums are exact, so a matrix product may add them in any order.
    totals[..., :sums] = inside.astype(np.float64) @ accumulators[..., :sums]
    if sums < width:
        # No tile's extreme is -0.0 (see update), so adding nothing leaves it as it is; infinity takes it out.
        outside = _OUTSIDE.take(inside)
        for column in range(sums, minima):
            np.minimum.reduce(accumulators[:, None, :, column] + outside, axis=2, out=totals[..., column])
        for column in range(minima, width):
            np.maximum.reduce(accumulators[:, None, :, column] - outside, axis=2, out=totals[..., column])
    if ring.sketches:
        _fill_estimates(ring, state[f"registers_{index}"], inside, out=totals[..., width:])
    return totals.reshape(len(state), windows * ring.columns)


def _inside(ring: Ring, tiles: NDArray[np.int32], as_of_us: Ints) -> NDArray[np.bool_]:
    """Tell which slots each of a ring's windows covers, ``[n, windows, slots]``: the tiles of ages 0 to its length.

    A tile still to come has a negative age, which is a huge one without its sign. An empty slot may be covered: it
    holds what changes nothing.
    """
    age = (as_of_us // ring.width_us)[:, None] - tiles
    covered: NDArray[np.bool_] = age.view(np.uint64)[:, None, :] < _lengths(ring.width_us, ring.windows_us)
    return covered


@lru_cache(maxsize=1024)
def _lengths(width_us: int, windows_us: tuple[int, ...]) -> NDArray[np.uint64]:
    """Return how many tiles each window has, ``[windows, 1]``."""
    return (np.array(windows_us, np.uint64) // np.uint64(width_us))[:, None]


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
    missing = newest == _NEVER
    age = np.maximum(as_of_us - newest, _NO_TIME)
    age[missing] = -1  # what overflowed
    values = Formulas.of(layout).values(
        totals=totals, last_value=last_value, last_time=last_time, as_of_us=as_of_us, age_us=age
    )
    # Not np.copyto(where=isnan) on everything: most views declare no default.
    defaulted = None
    if _has_defaults(layout):
        defaulted = np.isnan(values) & _declared(layout)
        values = np.where(defaulted, layout.defaults, values)
    status = _STATUS.take(missing)
    if layout.view.ttl_us is not None:
        stale = age > _ttl(layout)
        status[stale] = STALE
        if layout.view.on_stale is OnStale.DEFAULT:
            values[stale] = layout.defaults
            if defaulted is not None:
                defaulted[stale] = _declared(layout)
    for derivation in layout.derivations:
        values[:, derivation.out] = found = _derived(derivation, values)
        if not math.isnan(derivation.default):
            defaulted = np.zeros(values.shape, np.bool_) if defaulted is None else defaulted
            defaulted[:, derivation.out] = np.isnan(found)
            values[:, derivation.out] = np.where(np.isnan(found), derivation.default, found)
    return ViewValues(values=values, age_us=age, status=status, defaulted=defaulted)


@lru_cache(maxsize=1024)
def _declared(layout: ViewLayout) -> NDArray[np.bool_]:
    """Tell which features that are aggregated have a default."""
    return ~np.isnan(layout.defaults)


@lru_cache(maxsize=1024)
def _ttl(layout: ViewLayout) -> Ints:
    return np.array(layout.view.ttl_us, np.int64)


@lru_cache(maxsize=1024)
def _has_defaults(layout: ViewLayout) -> bool:
    return not np.isnan(layout.defaults).all()


def _derived(derivation: Derivation, values: Floats) -> Floats:
    return evaluate(derivation.expression, lambda name: values[:, derivation.places[name]])


def same_bits(left: Floats, right: Floats) -> NDArray[np.bool_]:
    """Compare values as bits (so that -0.0 is not 0.0); null equals null.

    >>> same_bits(np.array([1.0, 0.0, np.nan]), np.array([1.0, -0.0, np.nan])).tolist()
    [True, False, True]
    """
    bits = (np.ascontiguousarray(one, np.float64).view(np.int64) for one in (left, right))
    same: NDArray[np.bool_] = np.equal(*bits)
    return same | (np.isnan(left) & np.isnan(right))
