"""The plain monthly retrain learns on the first of every month what was known by then, and nothing more."""

from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import clone

from driftline.models.fitting import candidates_of, columns_of, declared_model, gather, midnight_us
from driftline.playback.monthly import Refit, monthly_schedule, plain_scores
from driftline.project import load_project
from tests.unit.models_life.market import START, write_market


def test_every_day_is_served_by_one_refit() -> None:
    found = monthly_schedule(date(2013, 4, 1), date(2014, 1, 1))
    assert [one.month for one in found] == [f"2013-{month:02}" for month in range(4, 13)]
    assert all(before.end == after.start for before, after in pairwise(found))
    assert (found[0].start, found[-1].end) == (date(2013, 4, 1), date(2014, 1, 1))
    assert monthly_schedule(date(2013, 12, 31), date(2014, 1, 2)) == [
        Refit(start=date(2013, 12, 31), end=date(2014, 1, 1)),
        Refit(start=date(2014, 1, 1), end=date(2014, 1, 2)),
    ]
    assert monthly_schedule(date(2013, 4, 1), date(2013, 4, 1)) == []


def test_a_refit_learns_what_was_known_when_it_began(tmp_path: Path) -> None:
    project = load_project(write_market(tmp_path))
    model = declared_model(project, "returns")
    schedule = monthly_schedule(date(2024, 3, 1), date(2024, 4, 20))
    until = midnight_us(date(2024, 4, 20))
    later = gather(project, model, start=date(2024, 2, 28), until_us=until, known_by_us=until).rows
    outcomes = pa.table(
        {
            "event_time": pa.array(later.as_of_us, pa.timestamp("us")),
            **{name: later.numeric[:, at].astype(float) for at, name in enumerate(model.numeric_columns)},
            **{name: later.categorical[name] for name in model.categorical_columns},
        }
    )
    candidate = next(iter(candidates_of(model)))
    scores = plain_scores(project, model, outcomes, schedule, candidate=candidate, since=START)
    april = later.as_of_us >= midnight_us(date(2024, 4, 1))
    assert np.isnan(scores[later.as_of_us < midnight_us(date(2024, 3, 1))]).all()
    assert np.isfinite(scores[april]).all()

    # The same by hand.
    columns, begin = columns_of(model), midnight_us(date(2024, 4, 1))
    known = gather(project, model, start=START, until_us=begin, known_by_us=begin).rows
    fitted = clone(candidates_of(model)[candidate]).fit(
        columns.frame(known.numeric, known.categorical), known.labels
    )
    rows = later.take(april)
    expected = fitted.predict_proba(columns.frame(rows.numeric, rows.categorical))[:, 1]
    assert scores[april] == pytest.approx(expected, abs=0)
