"""Views of several sources: each is stored apart, and joined by entity when the view is read, online and offline alike.

A view is as old as the source that is furthest behind: its age is the largest of its streams' (each the age of the
entity's newest event there; streams without events of it do not count). Rows of a table do not grow old. A view that has no
stream of its own is as old as the views that it joins. What comes from a stream that is older than the time-to-live is
served by the view's policy, each stream's features by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.features.declarations import FeatureView, OnStale
from driftline.features.derivations import Derived, evaluate
from driftline.features.read import FRESH, MISSING, STALE, ViewValues

#: Returns the values of what is stored of a view (``FeatureView.stored``).
ReadStored = Callable[[FeatureView], ViewValues]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Where the features of each part stand in a view, and its formulas."""

    view: FeatureView
    places: tuple[NDArray[np.intp], ...]
    derived: tuple[tuple[int, Derived], ...]
    defaults: bool


#: By identity, for a declaration takes longer to hash than its blobs to read. Each plan holds its view, so no other one
#: can have the same.
_plans: dict[int, _Plan] = {}
_MOST_VIEWS = 1_024


def joined_values(view: FeatureView, read: ReadStored) -> ViewValues:
    """Return a view's values from those of what is stored of it: ``read`` is asked for each of ``view.stored``."""
    if not view.joins:
        return read(view)
    plan = _plan(view)
    parts = [read(part) for part in view.parts]
    others = [joined_values(one, read) for one in view.views]
    age_us = _age(view, parts, others)
    values = np.full((len(age_us), len(view.features)), np.nan)
    defaulted = np.zeros(values.shape, np.bool_) if plan.defaults else None
    for part, places in zip(parts, plan.places, strict=True):
        values[:, places] = part.values
        if defaulted is not None and part.defaulted is not None:
            defaulted[:, places] = part.defaulted
    columns = {feature.name: values[:, place] for place, feature in enumerate(view.features)}
    for one, found in zip(view.views, others, strict=True):
        columns.update(zip(one.columns, found.values.T, strict=True))
    for place, derived in plan.derived:
        values[:, place] = result = evaluate(derived.expression, columns.__getitem__)
        if derived.default is not None and defaulted is not None:
            defaulted[:, place] = np.isnan(result)
            values[:, place] = np.where(np.isnan(result), derived.default, result)
    return ViewValues(values=values, age_us=age_us, status=_status(view, age_us, others), defaulted=defaulted)


def _age(view: FeatureView, parts: Sequence[ViewValues], others: Sequence[ViewValues]) -> NDArray[np.int64]:
    """Return how far behind the view's streams are, or what stands for them; -1 where none has events."""
    streams = [found for part, found in zip(view.parts, parts, strict=True) if not part.source.table]
    age: NDArray[np.int64] = np.stack([one.age_us for one in streams or others or parts]).max(axis=0)
    return age


def _status(view: FeatureView, age_us: NDArray[np.int64], others: Sequence[ViewValues]) -> NDArray[np.uint8]:
    status = np.full(len(age_us), FRESH, np.uint8)
    status[age_us < 0] = MISSING
    if view.ttl_us is not None:
        status[age_us > view.ttl_us] = STALE
    for one, found in zip(view.views, others, strict=True):
        if one.on_stale is OnStale.REFUSE:
            status[found.status == STALE] = STALE
    return status


def _plan(view: FeatureView) -> _Plan:
    known = _plans.get(id(view))
    if known is not None:
        return known
    place = {feature.name: number for number, feature in enumerate(view.features)}
    plan = _Plan(
        view=view,
        places=tuple(np.array([place[one.name] for one in part.features], np.intp) for part in view.parts),
        derived=tuple((at, one) for at, one in enumerate(view.features) if isinstance(one, Derived)),
        defaults=any(one.default is not None for one in view.features),
    )
    if len(_plans) >= _MOST_VIEWS:
        _plans.clear()
    _plans[id(view)] = plan
    return plan
