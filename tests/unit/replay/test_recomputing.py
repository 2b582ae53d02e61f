"""Given events with the time when each came into the log, requests get the features that the store had for them then."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.archive.columns import INSTANT, placed
from driftline.archive.tables import Archive
from driftline.features import Entity, FeatureView, Source, count, derived, feature, field, join_key, mean
from driftline.features.point_in_time import as_of_join
from driftline.models.bundle import load_version
from driftline.project import Project, load_project
from driftline.replay.bundles import Bundles
from driftline.replay.recomputing import ArchivedFeatures, join_as_logged
from driftline.replay.records import ArchiveRecords
from driftline.replay.replaying import Replay
from driftline.runtime.errors import ConfigurationError

from .conftest import NOW_US, ROWS, SHOP, store

SHOP_PROJECT = load_project(SHOP)
VIEW = SHOP_PROJECT.views["customer_payments"]
HOUR_US = 3_600_000_000
#: What is asked for is also what the condition looks at: neither may get in the other's way.
PAIRS = FeatureView(
    "pairs",
    1,
    Source("payments", Entity("pair", keys=("customer", "merchant")), "paid_at"),
    [
        count().over("6h"),
        mean("amount").where(field("customer") != "b").over("1d").named("mean_but_b"),
        derived("mean_less_one", feature("mean_but_b") - 1),
    ],
    where=field("merchant") != "z",
)

_INSTANTS = st.integers(-30 * 60, 60).map(lambda minutes: NOW_US + minutes * 60_000_000)
_EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), _INSTANTS, st.integers(0, 20), st.none() | st.integers(-9, 9)),
    max_size=30,
)
_REQUESTS = st.lists(
    st.tuples(st.sampled_from("abd"), _INSTANTS, st.integers(0, 21)), min_size=1, max_size=20
)


def events_of(drawn: list[tuple[str, int, int, int | None]]) -> pa.Table:
    return pa.table(
        {
            "customer": pa.array([one[0] for one in drawn], pa.string()),
            "merchant": pa.array(["xyz"[number % 3] for number in range(len(drawn))], pa.string()),
            "paid_at": pa.array([one[1] for one in drawn], pa.int64()).cast(INSTANT),
            "_timestamp": pa.array([one[2] for one in drawn], pa.int64()).cast(INSTANT),
            "amount": pa.array([one[3] for one in drawn], pa.float64()),
        }
    )


@pytest.mark.parametrize("view", [VIEW, PAIRS], ids=lambda view: view.name)
@settings(max_examples=100, deadline=None)
@given(drawn=_EVENTS, requests=_REQUESTS)
def test_each_request_is_joined_to_what_the_log_held_by_then(
    view: FeatureView, drawn: list[tuple[str, int, int, int | None]], requests: list[tuple[str, int, int]]
) -> None:
    """The clock of the log and that of the requests run as they like; one request at a time is the oracle."""
    events = events_of(drawn)
    keys = [join_key([one[0], "x"]) if view.entity.composite else one[0] for one in requests]
    as_of, answered = (np.array([one[at] for one in requests], np.int64) for at in (1, 2))
    found = join_as_logged(view, events, keys, as_of, answered).values
    for row, (key, (_, instant, log_time)) in enumerate(zip(keys, requests, strict=True)):
        there = events.filter(pc.field("_timestamp") <= pa.scalar(log_time, pa.int64()).cast(INSTANT))
        there = there.append_column("known", pa.array(np.full(len(there), instant), pa.int64()).cast(INSTANT))
        (wanted,) = as_of_join(view, there, [key], np.array([instant]), known_at="known").values
        assert found[row].tobytes() == wanted.tobytes() or np.array_equal(found[row], wanted, equal_nan=True)


def payments(count: int = 400) -> pa.Table:
    """Payments of the hours before the log begins, each logged as it happened, a few of them again a little later."""
    random = np.random.default_rng(7)
    paid = np.sort(NOW_US - HOUR_US // 60 - random.integers(0, 5 * HOUR_US, count)) // 1_000 * 1_000
    table = pa.table(
        {
            "event_id": [f"p{number}" for number in range(count)],
            "customer": [f"c{number}" for number in random.integers(0, 7, count)],
            "merchant": [f"merchant-{number}" for number in random.integers(0, 20, count)],
            "paid_at": pa.array(paid, pa.int64()).cast(INSTANT),
            "amount": pa.array(random.normal(60, 30, count), mask=random.random(count) < 0.1),
            "refunded": random.random(count) < 0.2,
        }
    )
    sent = np.sort(np.append(np.arange(count), np.arange(0, count, 9)))
    again = np.append(False, np.diff(sent) == 0)
    logged_ms = paid[sent] // 1_000 + np.where(again, 700, 5)
    order = np.argsort(logged_ms, kind="stable")
    return placed(
        table.take(pa.array(sent[order])),
        partition=0,
        offsets=range(len(sent)),
        timestamps_ms=logged_ms[order],
        event_times=("paid_at",),
    )


def served(log: pa.Table, events: pa.Table, project: Project) -> pa.Table:
    """Return the log as it would be, had the store served each request what the events say."""
    seen: set[str] = set()
    first = [one not in seen and not seen.add(one) for one in events["event_id"].to_pylist()]  # type: ignore[func-returns-value]
    once = events.filter(pa.array(first))
    for view in project.models["fraud"].views:
        keys = log[view.entity.name].combine_chunks()
        as_of = log["event_time"].cast(pa.int64()).to_numpy()
        known = once.append_column("known", pa.array(np.full(len(once), as_of.min())).cast(INSTANT))
        values = as_of_join(view, known, keys, as_of, known_at="known").values
        for name, column in zip(view.columns, values.T, strict=True):
            array = pa.array(np.ascontiguousarray(column), mask=np.isnan(column))
            log = log.set_column(log.column_names.index(name), name, array)
    return log


def test_what_was_served_from_the_archived_events_comes_out_again_and_what_was_not_is_told(
    log: pa.Table, trained: object, archive: Archive, project: Project
) -> None:
    events = payments()
    ahead = events.slice(len(events) - 1)
    for name, value in {"event_id": ["early"], "customer": ["c1"]}.items():
        ahead = ahead.set_column(ahead.column_names.index(name), name, pa.array(value))
    paid = pa.array([NOW_US - 60_000_000], pa.int64()).cast(INSTANT)
    hours_before = pa.array([NOW_US - HOUR_US], pa.int64()).cast(INSTANT)
    ahead = ahead.set_column(ahead.column_names.index("paid_at"), "paid_at", paid)
    ahead = ahead.set_column(ahead.column_names.index("_timestamp"), "_timestamp", hours_before)
    store(archive, "payments", pa.concat_tables([events, ahead]))  # the store refused the last one
    expected = served(log, events, project)
    count = expected["customer_payments__count_1h"].to_pylist()
    wrong = expected.set_column(
        expected.column_names.index("customer_payments__count_1h"),
        "customer_payments__count_1h",
        pa.array([(count[0] or 0.0) + 1, *count[1:]]),
    )
    features = ArchivedFeatures(project, ArchiveRecords(archive, lambda _: None))
    going = Replay(Bundles(trained), {}, features=features)  # type: ignore[arg-type]
    rows = going.score(wrong).to_pylist()
    check = going.summary.features
    assert check is not None
    assert dict(check.different) == {"customer_payments__count_1h": 1}
    assert (check.values, check.equal) == (ROWS * 9 // 10 * 10, ROWS * 9 // 10 * 10 - 1)
    assert [row["features_changed"] for row in rows if row["features_changed"] is not None] == [1] + [0] * (
        ROWS * 9 // 10 - 1
    )
    (pairing,) = going.summary.pairings.values()
    assert pairing.scored == ROWS * 9 // 10


def test_a_view_that_is_declared_no_more_cannot_be_computed(project: Project, trained: object) -> None:
    class NoEvents:
        def columns(self, stream: str) -> pa.Schema:
            raise AssertionError(stream)

        def scan(self, stream: str, chosen: pc.Expression) -> Iterator[pa.Table]:
            raise AssertionError(stream)

    manifest = load_version(trained, "fraud", "1").manifest  # type: ignore[arg-type]
    manifest = manifest.model_copy(update={"views": ("customer_payments@7",)})
    with pytest.raises(ConfigurationError, match=r"customer_payments@7.*--features logged"):
        ArchivedFeatures(project, NoEvents()).recompute(pa.table({}), manifest)
