"""Parity: equal values are found equal, and one wrong bit is found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from driftline.features.point_in_time import as_of_join
from driftline.playback.parity import PUBLISHED_AT, check_parity
from driftline.project import Project, load_project

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
HOUR = 3_600_000_000
NOON = 1_364_817_600_000_000


@pytest.fixture(scope="module")
def project() -> Project:
    project = load_project(FLIGHTS)
    model = project.models["lateness"]
    views = tuple(view for view in model.views if view.name == "origin_departures")
    return replace(project, models={"lateness": replace(model, views=views)})


@pytest.fixture
def events() -> dict[str, pa.Table]:
    rng = np.random.default_rng(0)
    at = NOON - rng.integers(0, 5 * HOUR, 200)
    table = pa.table(
        {
            "origin": rng.choice(["JFK", "LGA"], 200).tolist(),
            "departed_at": pa.array(at, pa.timestamp("us")),
            "departure_delay": rng.normal(10, 30, 200),
            "late": rng.random(200) < 0.3,
            PUBLISHED_AT: pa.array(at + rng.integers(0, HOUR, 200), pa.timestamp("us")),
        }
    )
    return {"departures": table}


def served(project: Project, events: dict[str, pa.Table]) -> pa.Table:
    (view,) = project.request_views
    keys = ["JFK", "LGA", "EWR", "JFK"]
    as_of = np.array([NOON, NOON - HOUR, NOON, NOON + 49 * HOUR], np.int64)
    found = as_of_join(view, events["departures"], keys, as_of, known_at=PUBLISHED_AT)
    columns = {
        column: pa.array(found.values[:, i], pa.float64(), from_pandas=True)
        for i, column in enumerate(view.columns)
    }
    age = pa.array([None if age < 0 else age // 1000 for age in found.age_us.tolist()], pa.int64())
    return pa.table(
        {
            "request_id": ["r0", "r1", "r2", "r3"],
            "origin": keys,
            "event_time": pa.array(as_of, pa.timestamp("us")),
            "feature_views": [[view.ref]] * 4,
            **columns,
            view.age_column: age,
        }
    )


def test_point_in_time_values_are_equal_to_the_last_bit(
    project: Project, events: dict[str, pa.Table]
) -> None:
    parity = check_parity(project, events, served(project, events))
    assert parity.mismatches == ()
    (view,) = project.request_views
    assert parity.compared == parity.equal == 4 * (len(view.columns) + 1)
    assert parity.equal_share == 1.0


def test_one_different_bit_is_found_and_named(project: Project, events: dict[str, pa.Table]) -> None:
    table = served(project, events)
    column = "origin_departures__mean_departure_delay_3h"
    values = table[column].to_pylist()
    values[1] = float(np.nextafter(values[1], np.inf))
    table = table.set_column(table.column_names.index(column), column, pa.array(values, pa.float64()))
    parity = check_parity(project, events, table)
    assert parity.compared - parity.equal == 1
    assert [(found.column, found.request_id) for found in parity.mismatches] == [(column, "r1")]


def test_a_value_served_before_its_event_was_published_is_found(
    project: Project, events: dict[str, pa.Table]
) -> None:
    table = served(project, events)
    late = events["departures"].set_column(
        events["departures"].column_names.index(PUBLISHED_AT),
        PUBLISHED_AT,
        pa.array([NOON + HOUR] * 200, pa.timestamp("us")),
    )
    assert check_parity(project, {"departures": late}, table).equal_share < 1


def test_what_was_served_without_the_store_is_not_compared(
    project: Project, events: dict[str, pa.Table]
) -> None:
    table = served(project, events)
    degraded = table.append_column("degraded", pa.array(["no store", None, None, "no store"]))
    assert (
        check_parity(project, events, degraded).compared == check_parity(project, events, table).compared / 2
    )


def test_requests_that_read_nothing_are_not_compared(project: Project, events: dict[str, pa.Table]) -> None:
    table = served(project, events)
    nothing = pa.array([[]] * 4, pa.list_(pa.string()))
    table = table.set_column(table.column_names.index("feature_views"), "feature_views", nothing)
    assert check_parity(project, events, table).compared == 0
