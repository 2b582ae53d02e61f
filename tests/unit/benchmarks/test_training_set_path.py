"""The pandas pipeline and the training set's own path give the same values, and a difference is named."""

from datetime import date

import numpy as np
import pytest

from benchmarks import merge_asof
from benchmarks.training_set_path import Flights, check_equal


@pytest.fixture(scope="module")
def flights() -> Flights:
    return Flights.of(date(2013, 2, 6), date(2013, 2, 12))


def test_every_row_and_column_that_pandas_makes_is_equal(flights: Flights) -> None:
    ours, theirs = flights.ours(), flights.theirs()
    assert len(ours) > 3_000
    check_equal(flights.model, ours, theirs)
    skipped = merge_asof.left_out(flights.model)
    assert {name.partition("__")[2].partition("_")[0] for name in skipped} == {"max", "min"}
    assert set(theirs.columns) >= set(flights.model.numeric_columns) - set(skipped)
    assert np.isfinite(ours.numeric).mean(axis=0).min() > 0.2  # they are equal in more than being empty


@pytest.mark.parametrize(
    "column", ["carrier_departures__mean_departure_delay_3h", "origin_weather__last_pressure"]
)
def test_one_other_value_is_found_and_named(flights: Flights, column: str) -> None:
    ours, theirs = flights.ours(), flights.theirs()
    row = int(np.flatnonzero(theirs[column].notna())[0])
    theirs.loc[row, column] += 1
    with pytest.raises(ValueError, match=column):
        check_equal(flights.model, ours, theirs)


def test_other_labels_and_lost_rows_are_found(flights: Flights) -> None:
    ours, theirs = flights.ours(), flights.theirs()
    with pytest.raises(ValueError, match="rows against"):
        check_equal(flights.model, ours, theirs.iloc[:-1])
    theirs["label"] = ~theirs["label"].to_numpy(bool)
    with pytest.raises(ValueError, match="differ in label"):
        check_equal(flights.model, ours, theirs)


def test_events_known_later_than_they_happened_are_refused(flights: Flights) -> None:
    view = flights.model.views[0]
    events = flights.history.events[view.source.event_type]
    later = events.set_column(
        events.column_names.index("known_at"), "known_at", events["known_at"].take([0] * len(events))
    )
    with pytest.raises(ValueError, match="known later"):
        merge_asof.event_frame(view, later)
