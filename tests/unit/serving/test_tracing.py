"""A traced view is computed again from the events that it is about: filtered, derived, of a composite entity."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driftline.features import (
    Entity,
    FeatureView,
    Source,
    count,
    decayed_count,
    derived,
    feature,
    field,
    join_key,
    last,
    mean,
)
from driftline.features.point_in_time import as_of_join
from driftline.project import Project, load_project
from driftline.serving.event_search import OFFSET, PARTITION, FoundEvents
from driftline.serving.tracing import _trace_view, reach_us

NOW_US = 1_750_000_000_000_000
MINUTE_US = 60_000_000
SOURCE = Source("payments", Entity("pair", keys=("customer", "merchant")), "paid_at")
VIEW = FeatureView(
    "pair_payments",
    1,
    SOURCE,
    [
        count().over("1h"),
        mean("amount").where(field("refunded").is_false()).over("1h").named("kept"),
        derived("per_payment", feature("kept") / feature("count_1h")),
    ],
    where=field("amount") > 5,
)


@dataclass
class Found:
    """The events of a search that is over."""

    table: pa.Table
    as_of_us: int = NOW_US

    def of(self, view: FeatureView) -> FoundEvents:
        return FoundEvents(table=self.table, finished=True, whole=True)


@pytest.fixture(scope="module")
def project() -> Project:
    shop = load_project(Path(__file__).parents[2] / "e2e" / "shop")
    return replace(shop, views={VIEW.name: VIEW})


@pytest.fixture
def events() -> pa.Table:
    rows = [
        ("ann", "a,b", 10.0, False),
        ("ann", "a,b", 30.0, True),
        ("ann", "a,b", 20.0, None),
        ("ann", "a,b", 1.0, False),  # too small for the view
        ("ann", "a", 40.0, False),  # another merchant's
        ("ann,a", "b", 50.0, False),  # would be the same key if commas were not escaped
    ]
    return pa.table(
        {
            "event_id": [str(number) for number in range(len(rows))],
            "customer": [row[0] for row in rows],
            "merchant": [row[1] for row in rows],
            "paid_at": pa.array(
                [NOW_US - (number + 1) * MINUTE_US for number in range(len(rows))], pa.timestamp("us")
            ),
            "amount": [row[2] for row in rows],
            "refunded": [row[3] for row in rows],
            PARTITION: [0] * len(rows),
            OFFSET: list(range(len(rows))),
        }
    )


def record(events: pa.Table) -> dict[str, Any]:
    """What the log holds of a request for ann at a,b."""
    served = as_of_join(VIEW, events, [join_key(["ann", "a,b"])], np.array([NOW_US])).values[0]
    assert served.tolist() == [3.0, 10.0, 10.0 / 3.0]
    return {
        "customer": "ann",
        "merchant": "a,b",
        "event_time": datetime.fromtimestamp(NOW_US / 1e6, UTC),
        VIEW.age_column: 60_000,
        **dict(zip(VIEW.columns, served.tolist(), strict=True)),
    }


def test_the_events_of_the_view_and_of_no_other_are_told_and_give_the_values_again(
    project: Project, events: pa.Table
) -> None:
    traced = _trace_view(project, VIEW.ref, record(events), Found(events), newest=10)  # type: ignore[arg-type]
    assert (traced.key, traced.events, traced.recomputed_equal) == ("ann,a~1b", 3, True)
    assert [event["event_id"] for event in traced.newest] == ["0", "1", "2"]
    assert list(traced.values) == ["count_1h", "kept", "per_payment"]


def test_a_value_that_was_served_otherwise_is_told(project: Project, events: pa.Table) -> None:
    wrong = {**record(events), "pair_payments__per_payment": 3.0}
    traced = _trace_view(project, VIEW.ref, wrong, Found(events), newest=1)  # type: ignore[arg-type]
    assert traced.recomputed_equal is False


def test_a_request_without_one_of_the_keys_read_nothing(project: Project, events: pa.Table) -> None:
    nameless = {**record(events), "merchant": None}
    traced = _trace_view(project, VIEW.ref, nameless, Found(events), newest=1)  # type: ignore[arg-type]
    assert (traced.key, traced.recomputed_equal) == (None, None)


def test_a_decayed_view_reaches_back_as_far_as_its_weights() -> None:
    features = [count().over("1h"), decayed_count(half_life="30m")]
    assert reach_us(replace(VIEW, features=features)) == 8 * 30 * MINUTE_US
    assert reach_us(replace(VIEW, features=[*features, last("amount")])) > 24 * 60 * MINUTE_US


def test_the_sources_of_a_joined_view_are_told_together_and_give_the_values_again(events: pa.Table) -> None:
    shop = load_project(Path(__file__).parents[2] / "e2e" / "shop")
    again = replace(VIEW.source, name="again")
    view = FeatureView(
        "both",
        1,
        VIEW.source,
        [
            count().over("1h"),
            last("amount").of(again),
            derived("sum", feature("count_1h") + feature("pair_payments__kept")),
        ],
        joins=[again, VIEW],
    )
    project = replace(shop, views={view.name: view})
    served = as_of_join(view, events, [join_key(["ann", "a,b"])], np.array([NOW_US])).values[0]
    asked = {
        **record(events),
        view.age_column: 60_000,
        **dict(zip(view.columns, served.tolist(), strict=True)),
    }
    traced = _trace_view(project, view.ref, asked, Found(events), newest=2)  # type: ignore[arg-type]
    assert (traced.events, traced.recomputed_equal) == (4 + 4 + 3, True)
    assert [event["event_id"] for event in traced.newest] == ["0", "0"]
    wrong = {**asked, "both__sum": 1.0}
    assert _trace_view(project, view.ref, wrong, Found(events), newest=2).recomputed_equal is False  # type: ignore[arg-type]
    table = replace(view, joins=[replace(again, table=True), VIEW])
    assert reach_us(table.parts[1]) > 40 * 365 * 24 * 60 * MINUTE_US
