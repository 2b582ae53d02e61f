"""The demo's past tells each fact at the moment it was known."""

import itertools
import uuid
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from driftline.project import Project, load_project
from driftline.project.event_types import field_type
from driftline.project.history import History, load_history

FOLDER = Path(__file__).parents[3] / "examples" / "flights"
START, END = date(2013, 1, 1), date(2013, 4, 1)


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project(FOLDER)


@pytest.fixture(scope="module")
def history(project: Project) -> History:
    return load_history(project, START, END)


@pytest.fixture(scope="module")
def requests(history: History) -> pd.DataFrame:
    return history.requests.to_pandas()


def test_every_field_of_every_event_is_documented(project: Project) -> None:
    for event_type in project.event_types.values():
        assert event_type.schema["doc"]
        assert all(field["doc"] for field in event_type.schema["fields"])


def test_the_tables_have_the_schemas_types(project: Project, history: History) -> None:
    arrow = {"string": pa.string(), "double": pa.float64(), "boolean": pa.bool_(), "int": pa.int32()}
    for name, event_type in project.event_types.items():
        table = history.events[name]
        fields = [field["name"] for field in event_type.schema["fields"]]
        assert table.column_names == [*fields, "known_at"]
        for field in fields:
            kind = field_type(event_type.schema, field)
            wanted = pa.timestamp("us") if isinstance(kind, dict) else arrow[kind]
            assert table.schema.field(field).type == wanted
            if not isinstance(
                next(f for f in event_type.schema["fields"] if f["name"] == field)["type"], list
            ):
                assert table[field].null_count == 0


def test_events_are_known_when_they_happen(project: Project, history: History) -> None:
    for name, event_type in project.event_types.items():
        table = history.events[name]
        assert table["known_at"].equals(table[event_type.event_time])


def test_ids_are_version_5_unique_and_the_same_in_any_span(project: Project, history: History) -> None:
    ids = [item for table in history.events.values() for item in table["event_id"].to_pylist()]
    ids += history.requests["request_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert {uuid.UUID(item).version for item in ids[::1000]} == {5}

    day = load_history(project, date(2013, 2, 8), date(2013, 2, 9))
    for name, table in day.events.items():
        first = pc.index(history.events[name]["event_id"], table["event_id"][0]).as_py()
        assert history.events[name].slice(first, len(table)).equals(table)


def test_spans_partition_the_past(project: Project, history: History) -> None:
    edges = [START, date(2013, 1, 31), date(2013, 3, 10), END]
    parts = [load_history(project, first, last) for first, last in itertools.pairwise(edges)]
    for name, table in history.events.items():
        assert pa.concat_tables(part.events[name] for part in parts).equals(table)
    assert pa.concat_tables(part.requests for part in parts).equals(history.requests)


def test_a_flight_arrives_after_it_left(history: History) -> None:
    key = ["carrier", "flight", "origin", "dest"]
    departures = history.events["departures"].to_pandas()
    arrivals = history.events["arrivals"].to_pandas()
    for table, time, delay in ((departures, "departed_at", "departure_delay"), (arrivals, "arrived_at", "arrival_delay")):  # fmt: skip
        late = (table[time] - table["scheduled_at"]) / pd.Timedelta(minutes=1)
        assert (late == table[delay]).all()
        assert (table["late"] == (table[delay] >= 15)).all()
    departures["day"] = departures["scheduled_at"].dt.floor("h")
    arrivals = arrivals.sort_values("arrived_at")
    joined = pd.merge_asof(
        arrivals, departures.sort_values("departed_at"), left_on="arrived_at", right_on="departed_at", by=key,
        suffixes=("", "_departure"),
    ).dropna(subset=["departed_at", "air_time"])  # fmt: skip
    taxi = (joined["arrived_at"] - joined["departed_at"]) / pd.Timedelta(minutes=1) - joined["air_time"]
    # A wrong time zone or day would show as an hour, three or twenty-four.
    assert len(joined) > 70_000
    assert taxi.between(0, 240).mean() > 0.999
    assert taxi.groupby(joined["dest"]).median().between(10, 60).all()


def test_labels_come_late_as_in_life(requests: pd.DataFrame) -> None:
    waits = (requests["label_known_at"] - requests["event_time"]) / pd.Timedelta(minutes=1) - 60
    assert waits.quantile([0.05, 0.5, 0.95]).between([50, 150, 350], [80, 190, 420]).all()
    assert (waits.dropna() > -60).all()
    assert (requests["label"].isna() == requests["label_known_at"].isna()).all()
    assert 0.02 < requests["label"].isna().mean() < 0.05


def test_a_request_is_an_hour_before_its_flight_in_local_time(requests: pd.DataFrame) -> None:
    departure = requests["event_time"] + pd.Timedelta(hours=1)
    local = departure.dt.tz_localize("UTC").dt.tz_convert("America/New_York")
    np.testing.assert_allclose(requests["sched_hour"], local.dt.hour + local.dt.minute / 60)
    assert (requests["day_of_week"] == local.dt.day_of_week).all()
    # Flights leave between five in the morning and midnight, on both sides of the clock change of 10 March.
    for part in (requests[departure < "2013-03-10"], requests[departure > "2013-03-11"]):
        assert part["sched_hour"].min() >= 1
        assert part["sched_hour"].quantile(0.001) >= 5
    assert requests["sched_duration"].between(30, 720).all()


def test_a_request_holds_nothing_of_the_flight_itself(project: Project, requests: pd.DataFrame) -> None:
    assert set(requests) == {
        "request_id", "event_time", "label", "label_known_at", "flight_id",
        "origin", "carrier", "dest",
        "sched_hour", "day_of_week", "distance", "sched_duration", "plane_age", "plane_seats",
    }  # fmt: skip
    assert requests["plane_seats"].isna().mean() == pytest.approx(0.156, abs=0.05)


def test_the_blizzard_is_there(history: History) -> None:
    cancelled = history.events["cancellations"].to_pandas()
    local = cancelled["cancelled_at"].dt.tz_localize("UTC").dt.tz_convert("America/New_York").dt.date
    asked = history.requests.to_pandas()["event_time"] + pd.Timedelta(hours=1)
    flights = asked.dt.tz_localize("UTC").dt.tz_convert("America/New_York").dt.date
    for day, share in ((date(2013, 2, 8), 0.508), (date(2013, 2, 9), 0.575)):
        assert (local == day).sum() / (flights == day).sum() == pytest.approx(share, abs=0.001)
