"""Read feature values out of state rows, as of an instant: windows are merged from tiles at read time.

A window ``W`` as of ``t`` covers the tiles ``(t // width - W / width, t // width]``: never older than ``W``,
and its far edge moves in steps of a tile's width. No event means: a count and a sum of 0, and null for
all else. ``last`` and ``time_since_last`` look at the newest event that the row holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from driftline.features.decay import decayed_totals
from driftline.features.declarations import OnStale
from driftline.features.derivations import evaluate
from driftline.features.few_formulas import MOST_VALUES, FewFormulas, Lasts, age_of
from driftline.features.formulas import Formulas
from driftline.features.layout import NEVER, TILE_LIMIT, Derivation, State, ViewLayout
from driftline.features.rings import MOST_DECLARED_TILES, Ring
from driftline.features.sketches import Registers, estimated_counts
from driftline.features.update import merge_parts

#: Registers are merged for so many rows at a time.
_SKETCHED_ROWS = 512

FRESH, STALE, MISSING = 0, 1, 2
# Constants are arrays: numpy would make one of a number at every read.
_OUTSIDE = np.array([np.inf, 0.0])
_NO_TIME, _NEVER = np.array(0), np.array(NEVER)
# Below all numbers of tiles (an empty slot's is -1), and so far above that no window reaches back to one.
_BEFORE_TILES, _BEYOND_TILES = -2, TILE_LIMIT + MOST_DECLARED_TILES
_STATUS = np.array([FRESH, MISSING], np.uint8)
#: Nobody knows: the online store was not there to say.
DEGRADED = 3

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(slots=True, kw_only=True, eq=False)  # not frozen, which would make it take three times as long
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
    return finalize(
        layout,
        totals=window_totals(layout, rows, as_of),
        last_value=rows["last_value"] if layout.lasts else None,
        last_time=rows["last_time"] if layout.lasts else None,
        newest=rows["newest"],
        as_of_us=as_of,
    )


def window_totals(layout: ViewLayout, state: State, as_of_us: Ints) -> Floats:
    """Return rows' totals over each ring's windows: ``[n, C]``, as ``finalize`` takes them."""
    if len(layout.rings) == 1:
        return _ring_totals(layout, 0, state, as_of_us)
    totals = [_ring_totals(layout, index, state, as_of_us) for index in range(len(layout.rings))]
    return np.concatenate(totals, axis=1) if totals else np.empty((len(state), 0))


def _ring_totals(layout: ViewLayout, index: int, state: State, as_of_us: Ints) -> Floats:
    """Return what is read of each window of a ring: ``[n, windows * totals]``."""
    ring = layout.rings[index]
    windows, width = len(ring.windows_us), len(ring.accumulators)
    tiles, accumulators = state[f"tiles_{index}"], state[f"acc_{index}"]
    if ring.half_life_us is not None:
        return decayed_totals(ring, tiles, accumulators, as_of_us)
    # Sums are exact, so a matrix product may add them in any order.
    if ring.additive == ring.columns:
        if len(state) == 1:
            weights = _weights_of_one(ring, tiles, as_of_us)
        else:
            weights = _inside(ring, tiles, as_of_us).astype(np.float64)
        sums: Floats = weights @ accumulators
        return sums.reshape(len(state), windows * ring.columns)
    inside = _inside(ring, tiles, as_of_us)
    totals = np.empty((len(state), windows, ring.columns))
    additive, minima = ring.additive, ring.additive + ring.minima
    totals[..., :additive] = inside.astype(np.float64) @ accumulators[..., :additive]
    if additive < width:
        # No tile's extreme is -0.0 (see update), so adding nothing leaves it as it is; infinity takes it out.
        outside = _OUTSIDE.take(inside)
        for column in range(additive, minima):
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
    covered: NDArray[np.bool_] = age.view(np.uint64)[:, None, :] < ring.lengths
    return covered


def _weights_of_one(ring: Ring, tiles: NDArray[np.int32], as_of_us: Ints) -> Floats:
    """Return what ``_inside`` tells of a single row, as 1 and 0, ``[1, windows, slots]``: looked up, so in fewer steps.

    Four bytes are enough for an age: an instant beyond the tiles that are kept, on either side, is moved to where no
    window covers one either. Age -1, the first of a window's weights, stands for all that are still to come.
    """
    number = min(max(as_of_us.item() // ring.width_us, _BEFORE_TILES), _BEYOND_TILES)
    return ring.weights.take(number + 1 - tiles, axis=1, mode="clip").swapaxes(0, 1)


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
    layout: ViewLayout,
    *,
    totals: Floats,
    last_value: Floats | None,
    last_time: Ints | None,
    newest: Ints,
    as_of_us: Ints,
) -> ViewValues:
    """Turn totals into feature values: defaults, the time-to-live, formulas. Shared with the offline join.

    Parameters
    ----------
    totals
        ``[n, C]``: for each ring, each window, each of ``Ring.totals`` one column.
    last_value, last_time
        ``[n, L]``: newest value of each of ``layout.lasts`` and its event time (NEVER if there is none); may be None if L is 0.
    newest
        ``[n]``: newest event time (NEVER if there is none).
    """
    terms = _terms(layout)
    few = 0 < len(newest) * len(layout.defaults) <= MOST_VALUES
    work_out = _few_values if few else _values
    values, age, status = work_out(terms, totals, last_value, last_time, newest, as_of_us)
    # Not np.copyto(where=isnan) on everything: most views declare no default.
    defaulted = None
    if terms.declared is not None:
        defaulted = np.isnan(values) & terms.declared
        values = np.where(defaulted, layout.defaults, values)
    if terms.stale_default:
        stale = status == STALE
        values[stale] = layout.defaults
        if defaulted is not None:
            defaulted[stale] = terms.declared
    for derivation in layout.derivations:
        values[:, derivation.out] = found = _derived(derivation, values)
        if not math.isnan(derivation.default):
            defaulted = np.zeros(values.shape, np.bool_) if defaulted is None else defaulted
            defaulted[:, derivation.out] = np.isnan(found)
            values[:, derivation.out] = np.where(np.isnan(found), derivation.default, found)
    return ViewValues(values=values, age_us=age, status=status, defaulted=defaulted)


def _values(
    terms: _Terms,
    totals: Floats,
    last_value: Floats | None,
    last_time: Ints | None,
    newest: Ints,
    as_of_us: Ints,
) -> tuple[Floats, Ints, NDArray[np.uint8]]:
    """Return values without defaults, ages and status."""
    missing = newest == _NEVER
    age = np.maximum(as_of_us - newest, _NO_TIME)
    age[missing] = -1  # what overflowed
    values = terms.formulas.values(
        totals=totals, last_value=last_value, last_time=last_time, as_of_us=as_of_us, age_us=age
    )
    status = _STATUS.take(missing)
    if terms.ttl_us < math.inf:
        status[age > terms.ttl_us] = STALE
    return values, age, status


def _few_values(
    terms: _Terms,
    totals: Floats,
    last_value: Floats | None,
    last_time: Ints | None,
    newest: Ints,
    as_of_us: Ints,
) -> tuple[Floats, Ints, NDArray[np.uint8]]:
    """Return what ``_values`` does, sooner for few."""
    few, longest = terms.few_formulas, terms.ttl_us
    lasts: Iterable[Lasts] = repeat(())
    if last_value is not None and last_time is not None:
        lasts = map(zip, last_value.tolist(), last_time.tolist())
    values, ages, status = [], [], []
    given = zip(totals.tolist(), newest.tolist(), as_of_us.tolist(), lasts)  # noqa: B905  (repeat has no end)
    for row, event, instant, last in given:
        age = age_of(event, instant)
        values.append(few.values(row, instant, age, last))
        ages.append(age)
        status.append(MISSING if age < 0 else STALE if age > longest else FRESH)
    return np.array(values, np.float64), np.array(ages, np.int64), np.array(status, np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Terms:
    """What a view declares about its values, worked out once.

    ``declared`` tells which features that are aggregated have a default; None: none has. With ``stale_default`` defaults
    are served for an entity that is stale.
    """

    formulas: Formulas
    few_formulas: FewFormulas
    declared: NDArray[np.bool_] | None
    ttl_us: float
    stale_default: bool


@lru_cache(maxsize=1024)
def _terms(layout: ViewLayout) -> _Terms:
    declared = ~np.isnan(layout.defaults)
    return _Terms(
        formulas=Formulas.of(layout),
        few_formulas=FewFormulas.of(layout),
        declared=declared if declared.any() else None,
        ttl_us=math.inf if layout.view.ttl_us is None else layout.view.ttl_us,
        stale_default=layout.view.ttl_us is not None and layout.view.on_stale is OnStale.DEFAULT,
    )


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
