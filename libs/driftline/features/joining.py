"""Views of several sources: each is stored apart, and joined by entity when the view is read, online and offline alike.

What of a source is older than the view's time-to-live is stale, whatever the others bring: its features are served by
the view's policy, and the view's status is STALE. The view's age is that of its newest event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from driftline.features.declarations import FeatureView
from driftline.features.derivations import Derived, evaluate
from driftline.features.read import FRESH, MISSING, STALE, ViewValues

#: Returns the values of what is stored of a view (``FeatureView.stored``).
ReadStored = Callable[[FeatureView], ViewValues]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Where the features of each part stand in the view, and where formulas find what they name."""

    places: tuple[NDArray[np.intp], ...]
    derived: tuple[tuple[int, Derived], ...]


def joined_values(view: FeatureView, read: ReadStored) -> ViewValues:
    """Return a view's values from those of what is stored of it: ``read`` is asked for each of ``view.stored``."""
    if not view.joins:
        return read(view)
    plan = _plan(view)
    parts = [read(part) for part in view.parts]
    others = [joined_values(one, read) for one in view.views]
    read_before = [*parts, *others]
    values = np.full((len(read_before[0].age_us), len(view.features)), np.nan)
    for part, places in zip(parts, plan.places, strict=True):
        values[:, places] = part.values
    columns = {feature.name: values[:, place] for place, feature in enumerate(view.features)}
    for one, found in zip(view.views, others, strict=True):
        columns.update(zip(one.columns, found.values.T, strict=True))
    for place, derived in plan.derived:
        result = evaluate(derived.expression, columns.__getitem__)
        values[:, place] = (
            result if derived.default is None else np.where(np.isnan(result), derived.default, result)
        )
    return ViewValues(values=values, age_us=_age(read_before), status=_status(read_before))


def _age(parts: Sequence[ViewValues]) -> NDArray[np.int64]:
    """Return the age of the newest event of any; -1 where there is none."""
    ages = np.stack([part.age_us for part in parts])
    never = np.iinfo(np.int64).max
    age: NDArray[np.int64] = np.where(ages < 0, never, ages).min(axis=0)
    return np.where(age == never, -1, age)


def _status(parts: Sequence[ViewValues]) -> NDArray[np.uint8]:
    found = np.stack([part.status for part in parts])
    status = np.full(found.shape[1], FRESH, np.uint8)
    status[(found == MISSING).all(axis=0)] = MISSING
    status[(found == STALE).any(axis=0)] = STALE
    return status


@lru_cache(maxsize=1024)
def _plan(view: FeatureView) -> _Plan:
    place = {feature.name: number for number, feature in enumerate(view.features)}
    return _Plan(
        places=tuple(np.array([place[one.name] for one in part.features], np.intp) for part in view.parts),
        derived=tuple((at, one) for at, one in enumerate(view.features) if isinstance(one, Derived)),
    )
