"""How feature values come of totals in Python's own numbers: of few, numpy's calls cost more than what they compute.

It is a second way to what ``formulas`` does, with the same bits: IEEE 754 defines every step. Python differs in two
things: it raises where a divisor is 0, and its integers do not overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Final

import numpy as np

from driftline.features.aggregations import Aggregate
from driftline.features.layout import NEVER, Recipe, ViewLayout

#: Of each of ``layout.lasts`` the newest value and its time (NEVER if there is none).
Lasts = Iterable[tuple[float, int]]

#: More values than these are made faster by ``formulas``.
MOST_VALUES = 16

_LONGEST_AGE: Final = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FewFormulas:
    """How a view's values are made, each by itself.

    Attributes
    ----------
    formulas
        One per feature, in declared order (any for a derived one): its value from a row's numbers. Those are the row's
        totals, and where ``newest`` is set, behind them what ``_of_newest`` says.
    """

    formulas: tuple[Callable[[Sequence[float]], float], ...]
    newest: bool

    @staticmethod
    def of(layout: ViewLayout) -> FewFormulas:
        """Return the formulas of a view (the same object for one layout)."""
        return _derive(layout)

    def values(self, row: list[float], as_of_us: int, age_us: int, lasts: Lasts) -> list[float]:
        """Return a row's values as ``Formulas.values`` does, to the bit. ``row`` has its totals, and is written to.

        ``age_us`` is that of the entity's newest event, -1 for none.
        """
        if self.newest:
            row += _of_newest(as_of_us, age_us, lasts)
        return [formula(row) for formula in self.formulas]


def age_of(event_us: int, as_of_us: int) -> int:
    """Return how old an event is, not below 0; -1 for none.

    >>> age_of(5, 7), age_of(7, 5), age_of(NEVER, 5)
    (2, 0, -1)
    """
    if event_us == NEVER:
        return -1
    age = as_of_us - event_us
    return age if 0 <= age <= _LONGEST_AGE else 0  # in 64 bits, what is longer is less than 0


def _of_newest(as_of_us: int, age_us: int, lasts: Lasts) -> list[float]:
    """Return the seconds since the entity's newest event, and of each of ``layout.lasts`` value and seconds since."""
    said = [_seconds(age_us)]
    for value, when in lasts:
        age = age_of(when, as_of_us)
        said += (math.nan if age < 0 else value, _seconds(age))
    return said


def _seconds(age_us: int) -> float:
    return math.nan if age_us < 0 else age_us / 1e6


def _extreme(source: int) -> Callable[[Sequence[float]], float]:
    def extreme(row: Sequence[float]) -> float:
        return math.nan if math.isinf(row[source]) else row[source]  # of no event

    return extreme


def _ratio(total: int, count: int) -> Callable[[Sequence[float]], float]:
    def ratio(row: Sequence[float]) -> float:
        divisor = row[count]
        return row[total] / divisor if divisor else math.nan

    return ratio


def _deviation(high: int, low: int, total: int, count: int) -> Callable[[Sequence[float]], float]:
    def deviation(row: Sequence[float]) -> float:
        events, added = row[count], row[total]
        if not events:
            return math.nan
        variance = (row[high] + row[low] - added * (added / events)) / events
        return 0.0 if variance <= 0.0 else math.sqrt(variance)

    return deviation


def _most_frequent(*counts: int) -> Callable[[Sequence[float]], float]:
    def most_frequent(row: Sequence[float]) -> float:
        found = [row[count] for count in counts]
        return float(found.index(max(found))) if any(found) else math.nan

    return most_frequent


_FORMULAS: dict[Aggregate, Callable[..., Callable[[Sequence[float]], float]]] = {
    Aggregate.MIN: _extreme,
    Aggregate.MAX: _extreme,
    Aggregate.MEAN: _ratio,
    Aggregate.RATE: _ratio,
    Aggregate.SHARE: _ratio,
    Aggregate.DECAYED_MEAN: _ratio,
    Aggregate.STD: _deviation,
    Aggregate.MOST_FREQUENT: _most_frequent,
}


@lru_cache(maxsize=1024)
def _derive(layout: ViewLayout) -> FewFormulas:
    totals = sum(len(ring.windows_us) * ring.columns for ring in layout.rings)
    formulas: list[Callable[[Sequence[float]], float]] = [_nothing] * len(layout.defaults)
    newest = False
    for recipe in layout.recipes:
        said = _said(recipe)
        newest |= said is not None
        for place, out in enumerate(recipe.out.tolist()):
            sources = [int(source[place]) for source in recipe.sources]
            if said is None:
                formulas[out] = _FORMULAS.get(recipe.aggregate, itemgetter)(*sources)
            else:
                formulas[out] = itemgetter(totals + said + (2 * sources[0] if sources else 0))
    return FewFormulas(formulas=tuple(formulas), newest=newest)


def _said(recipe: Recipe) -> int | None:
    """Return where ``_of_newest`` has a recipe's value, the first of ``layout.lasts``'; None for one over totals."""
    if recipe.aggregate is Aggregate.LAST:
        return 1
    if recipe.aggregate is Aggregate.TIME_SINCE_LAST:
        return 2 if recipe.sources else 0
    return None


def _nothing(_row: Sequence[float]) -> float:
    return math.nan
