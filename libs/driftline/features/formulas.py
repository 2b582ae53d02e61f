"""How feature values come of totals: a view's features ordered by formula, so that a formula is a few steps for all.

The order is worked out once per view. A read then takes all totals that it needs in one step, each formula reads and
writes columns that stand side by side, and one more step brings the values into declared order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from driftline.features.aggregations import Aggregate
from driftline.features.layout import NEVER, Recipe, ViewLayout

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Constants are arrays: numpy would make one of a number at every read.
_ZERO, _NAN = np.array(0.0), np.array(np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One formula: it reads these ranges of what was taken, and writes this range of what is made."""

    formula: Callable[..., Floats]
    sources: tuple[slice, ...]
    out: slice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Formulas:
    """How a view's values are made.

    Attributes
    ----------
    taken
        The totals that are read, one column each, ordered so that every source of a formula is a range.
    divisors
        The range of them that is divided by.
    steps
        The formulas over totals.
    lasts
        Recipes over the newest events, each with the range that it writes.
    places
        For each feature of the view where it is among what is made (any place for a derived one).
    made
        How many columns are made.
    """

    taken: NDArray[np.intp]
    divisors: slice
    steps: tuple[_Step, ...]
    lasts: tuple[tuple[Recipe, slice], ...]
    places: NDArray[np.intp]
    made: int

    @staticmethod
    def of(layout: ViewLayout) -> Formulas:
        """Return the formulas of a view (the same object for one layout)."""
        return _derive(layout)

    def values(
        self,
        *,
        totals: Floats,
        last_value: Floats | None,
        last_time: Ints | None,
        as_of_us: Ints,
        age_us: Ints,
    ) -> Floats:
        """Return the values ``[n, features]``, NaN for null, as ``read.finalize`` takes its arguments.

        Columns of derived features hold anything. ``age_us`` is that of the entity's newest event, -1 for none.
        """
        # A feature's values lie side by side: long columns offline, and the same steps for one row.
        taken = totals.T.take(self.taken, axis=0)
        divisors = taken[self.divisors]
        divisors[divisors == _ZERO] = _NAN
        made = np.empty((self.made, len(totals)))
        for step in self.steps:
            made[step.out] = step.formula(*map(taken.__getitem__, step.sources))
        for recipe, out in self.lasts:
            made[out] = _of_newest(recipe, last_value, last_time, as_of_us, age_us)
        return made.take(self.places, axis=0).T


def _total(total: Floats) -> Floats:
    return total


def _extreme(extreme: Floats) -> Floats:
    extreme[np.isinf(extreme)] = _NAN  # of no event
    return extreme


def _ratio(total: Floats, count: Floats) -> Floats:
    return total / count


def _deviation(high: Floats, low: Floats, total: Floats, count: Floats) -> Floats:
    variance = (high + low - total * (total / count)) / count
    deviation: Floats = np.sqrt(np.maximum(variance, _ZERO))
    return deviation


def _most_frequent(*counts: Floats) -> Floats:
    """Return the place of the largest count, the first of equal ones; NaN where all are 0."""
    stacked = np.stack(counts)
    return np.where(stacked.any(axis=0), stacked.argmax(axis=0), np.nan)


def _of_newest(
    recipe: Recipe, last_value: Floats | None, last_time: Ints | None, as_of_us: Ints, age_us: Ints
) -> NDArray[np.float64]:
    """Return what a recipe without a window says, a feature's values side by side."""
    if last_value is None or last_time is None or not recipe.sources:
        # The time since the entity's newest event.
        return np.where(age_us < 0, np.nan, age_us / 1e6)
    when = last_time.T[recipe.sources[0]]
    never = when == NEVER
    if recipe.aggregate is Aggregate.LAST:
        return np.where(never, np.nan, last_value.T[recipe.sources[0]])
    since = np.maximum(as_of_us - np.where(never, 0, when), 0) / 1e6
    return np.where(never, np.nan, since)


_LASTS = frozenset({Aggregate.LAST, Aggregate.TIME_SINCE_LAST})
_FORMULAS: dict[Aggregate, Callable[..., Floats]] = {
    Aggregate.MIN: _extreme,
    Aggregate.MAX: _extreme,
    Aggregate.MEAN: _ratio,
    Aggregate.RATE: _ratio,
    Aggregate.SHARE: _ratio,
    Aggregate.DECAYED_MEAN: _ratio,
    Aggregate.STD: _deviation,
    Aggregate.MOST_FREQUENT: _most_frequent,
}
#: Their last source is a count that they divide by.
_DIVIDE = frozenset({_ratio, _deviation})


@lru_cache(maxsize=1024)
def _derive(layout: ViewLayout) -> Formulas:
    steps: dict[tuple[Callable[..., Floats], int], list[Recipe]] = {}
    lasts: list[Recipe] = []
    for recipe in layout.recipes:
        if recipe.aggregate in _LASTS:
            lasts.append(recipe)
        else:
            formula = _FORMULAS.get(recipe.aggregate, _total)
            steps.setdefault((formula, len(recipe.sources)), []).append(recipe)
    outs = _ranges(
        [sum(len(one.out) for one in recipes) for recipes in steps.values()] + [len(r.out) for r in lasts]
    )
    # The counts that are divided by come last of what is taken.
    blocks = [(step, source) for step in steps for source in range(step[1])]
    blocks.sort(key=lambda block: block[0][0] in _DIVIDE and block[1] == block[0][1] - 1)
    columns = [_joined(recipe.sources[source] for recipe in steps[step]) for step, source in blocks]
    ranges = dict(zip(blocks, _ranges(map(len, columns)), strict=True))
    order = [_joined(one.out for one in recipes) for recipes in steps.values()] + [one.out for one in lasts]
    places = np.zeros(len(layout.defaults), np.intp)
    places[_joined(order)] = np.arange(sum(map(len, order)))
    divided_by = [ranges[step, step[1] - 1].start for step in steps if step[0] in _DIVIDE]
    return Formulas(
        taken=_joined(columns),
        divisors=slice(min(divided_by, default=sum(map(len, columns))), None),
        steps=tuple(
            _Step(formula=step[0], sources=tuple(ranges[step, source] for source in range(step[1])), out=out)
            for step, out in zip(steps, outs[: len(steps)], strict=True)
        ),
        lasts=tuple(zip(lasts, outs[len(steps) :], strict=True)),
        places=places,
        made=max(sum(map(len, order)), 1),
    )


def _ranges(sizes: Iterable[int]) -> list[slice]:
    """Return adjoining ranges of these sizes."""
    ends = np.cumsum([0, *sizes]).tolist()
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _joined(parts: Iterable[NDArray[np.intp]]) -> NDArray[np.intp]:
    return np.concatenate([np.empty(0, np.intp), *parts])
