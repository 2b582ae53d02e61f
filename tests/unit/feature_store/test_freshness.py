"""The newest readable event of each view, and how long events took to get there, as Prometheus is told."""

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client import REGISTRY
from prometheus_client.exposition import generate_latest

from driftline.cli.process_status import ServiceStatus, parse_views, view_freshness
from driftline.features import Entity, FeatureView, Source, count, field
from driftline.runtime.clock import ManualClock
from driftline.runtime.metrics import ManyHistogram
from driftline.streaming.partitions import Partition
from services.feature_store.freshness import Freshness, Readable
from services.feature_store.partition_state import _rows_of

SECOND_US = 1_000_000
NOW_US = 1_750_000_000 * SECOND_US
FIRST, SECOND = Partition("shop.payments", 0), Partition("shop.payments", 1)


def readable(view: str, event_ago_s: float, *logged_ago_s: float) -> Readable:
    logged = np.array([NOW_US - round(ago * SECOND_US) for ago in logged_ago_s], np.int64)
    return Readable(view=view, newest_us=NOW_US - round(event_ago_s * SECOND_US), logged_us=logged)


def value(name: str, view: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"driftline_{name}", {"view": view, **labels})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_US)


def test_the_newest_event_of_all_partitions_counts(clock: ManualClock) -> None:
    freshness = Freshness({}, clock)
    freshness.begin(FIRST, ["a@1"], NOW_US - 90 * SECOND_US, NOW_US - 80 * SECOND_US)
    freshness.readable(FIRST, [readable("a@1", 300, 1.0)])  # a late event: what was there is newer
    freshness.show()
    assert value("view_event_timestamp_seconds", "a@1") == NOW_US / 1e6 - 90
    assert value("view_logged_timestamp_seconds", "a@1") == NOW_US / 1e6 - 1
    freshness.readable(SECOND, [readable("a@1", 30, 2.0, 0.5)])
    freshness.show()
    assert value("view_event_timestamp_seconds", "a@1") == NOW_US / 1e6 - 30
    freshness.forget([SECOND])
    freshness.show()
    assert value("view_event_timestamp_seconds", "a@1") == NOW_US / 1e6 - 90
    freshness.forget([FIRST])
    freshness.show()
    assert value("view_event_timestamp_seconds", "a@1") is None


def test_events_are_counted_by_how_long_they_took(clock: ManualClock) -> None:
    freshness = Freshness({}, clock)
    freshness.readable(FIRST, [readable("b@1", 1, 0.0005, 0.015, 0.015, 3.0, -0.2), readable("c@1", 1)])
    assert value("event_to_readable_seconds_count", "b@1") == 5
    assert value("event_to_readable_seconds_bucket", "b@1", le="0.02") == 4
    assert (
        value("event_to_readable_seconds_bucket", "b@1", le="0.001") == 2
    )  # a clock that runs ahead is no time
    assert value("event_to_readable_seconds_sum", "b@1") == pytest.approx(3.0305)
    assert value("event_to_readable_seconds_count", "c@1") is None


def test_a_breach_comes_and_goes(clock: ManualClock) -> None:
    freshness = Freshness({"d@1": 60 * SECOND_US}, clock)
    assert value("view_freshness_target_seconds", "d@1") == 60
    freshness.readable(FIRST, [readable("d@1", 30, 0.1)])
    freshness.show()
    assert value("view_freshness_breached", "d@1") == 0
    clock.advance(31 * SECOND_US)
    freshness.show()
    assert value("view_freshness_breached", "d@1") == 1
    freshness.readable(FIRST, [readable("d@1", 0, 0.1)])
    freshness.show()
    assert value("view_freshness_breached", "d@1") == 0


def test_status_reads_it_over_all_processes(clock: ManualClock) -> None:
    one = Freshness({"e@1": 60 * SECOND_US, "f@1": 60 * SECOND_US, "g@1": 60 * SECOND_US}, clock)
    one.readable(FIRST, [readable("e@1", 90, 1.0), readable("f@1", 90, 2.0)])
    one.show()
    told = parse_views(generate_latest(REGISTRY).decode())
    other = parse_views('driftline_view_event_timestamp_seconds{view="e@1"} ' + str(NOW_US / 1e6 - 10) + "\n")
    found = {each.view: each for each in view_freshness([status(told), status(other)], NOW_US / 1e6)}
    assert (found["e@1"].age_seconds, found["e@1"].target_seconds, found["e@1"].breached) == (10, 60, False)
    assert (found["f@1"].age_seconds, found["f@1"].logged_age_seconds, found["f@1"].breached) == (90, 2, True)
    assert (found["g@1"].age_seconds, found["g@1"].breached) == (None, True)


def status(views: tuple) -> ServiceStatus:  # type: ignore[type-arg]
    return ServiceStatus(
        instance="feature_store-0",
        service="feature_store",
        alive=True,
        ready=True,
        lag=0,
        restarts=0,
        last_error="",
        pid=1,
        url=None,
        views=views,
    )


def test_a_column_is_observed_as_its_values_would_be() -> None:
    values = np.array([0.001, 0.0011, 0.5, 7.0, 100.0, 0.0])
    many = ManyHistogram("many_seconds", "many", ["view"], buckets=(0.001, 0.5, 10.0), registry=None)
    single = ManyHistogram("single_seconds", "single", ["view"], buckets=(0.001, 0.5, 10.0), registry=None)
    many.labels("v").observe_many(values)
    for each in values:
        single.labels("v").observe(each)
    samples = [
        [
            (one.name.partition("_")[2], one.value)
            for one in family.samples
            if not one.name.endswith("_created")
        ]
        for histogram in (many, single)
        for family in histogram.collect()
    ]
    assert samples[0] == samples[1]


def test_only_the_events_that_a_view_is_about_make_it_fresh() -> None:
    source = Source("payments", Entity("customer"), "paid_at")
    events = pa.RecordBatch.from_pydict({"amount": [1.0, 50.0, None]})
    large = FeatureView("large", 1, source, [count().over("1h")], where=field("amount") > 10)
    rows = _rows_of(large, events)
    assert rows is not None
    assert rows.tolist() == [1]
    assert _rows_of(FeatureView("all", 1, source, [count().over("1h")]), events) is None
