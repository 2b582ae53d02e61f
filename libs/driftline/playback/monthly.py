"""The rival of a whole year: the model that anyone would have who trains anew every month on all data so far.

It is computed offline, from the same history, and asked what it says of the same outcomes with the features that were
served: no gates, no shadow, no evidence, and the estimator always the one that the first version chose.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.base import clone

from driftline.features.event_columns import float_inputs, micros
from driftline.models.fitting import candidates_of, columns_of, gather, midnight_us
from driftline.project import ModelDeclaration, Project

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """A retrain of the plain schedule: it learns what was known on ``start`` and serves requests of ``[start, end)``."""

    start: date
    end: date

    @property
    def month(self) -> str:
        """The month that it serves.

        >>> Refit(start=date(2013, 4, 1), end=date(2013, 5, 1)).month
        '2013-04'
        """
        return f"{self.start:%Y-%m}"


def monthly_schedule(start: date, end: date) -> list[Refit]:
    """Return a refit at the start and one on the first of every month in ``[start, end)``.

    >>> [f"{one.start} {one.end}" for one in monthly_schedule(date(2013, 4, 20), date(2013, 6, 3))]
    ['2013-04-20 2013-05-01', '2013-05-01 2013-06-01', '2013-06-01 2013-06-03']
    """
    found = []
    while start < end:
        following = min(_next_month(start), end)
        found.append(Refit(start=start, end=following))
        start = following
    return found


def plain_scores(
    project: Project,
    model: ModelDeclaration,
    outcomes: pa.Table,
    schedule: Sequence[Refit],
    *,
    candidate: str,
    since: date,
    progress: Callable[[str], None] = lambda _: None,
) -> Floats:
    """Return what the plain monthly retrain says of outcomes, shape [n]; NaN before and behind its schedule.

    Parameters
    ----------
    outcomes
        With the model's inputs and features as they were served.
    candidate
        Name of the estimator in the project's model file.
    since
        The first day that is learnt from, UTC.
    """
    columns = columns_of(model)
    until_us = midnight_us(schedule[-1].start)
    progress("gathering the history")
    rows = gather(project, model, start=since, until_us=until_us, known_by_us=until_us).rows
    asked = micros(outcomes["event_time"])
    scores = np.full(len(outcomes), np.nan)
    for one in schedule:
        served = np.flatnonzero((asked >= midnight_us(one.start)) & (asked < midnight_us(one.end)))
        if not len(served):
            continue
        progress(f"a plain retrain for {one.month}")
        known = rows.take(rows.label_known_us <= midnight_us(one.start))
        frame = columns.frame(known.numeric, known.categorical)
        fitted = clone(candidates_of(model)[candidate]).fit(frame, known.labels)
        wanted = outcomes.take(pa.array(served))
        scores[served] = fitted.predict_proba(columns.frame(*_logged(model, wanted)))[:, 1]
    return scores


def _logged(
    model: ModelDeclaration, outcomes: pa.Table
) -> tuple[NDArray[np.float32], dict[str, list[str | None]]]:
    inputs = float_inputs(outcomes, model.numeric_columns)
    numeric = np.stack([inputs[name] for name in model.numeric_columns], axis=1).astype(np.float32)
    return numeric, {name: outcomes[name].to_pylist() for name in model.categorical_columns}


def _next_month(day: date) -> date:
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)
