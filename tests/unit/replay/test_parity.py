"""Given a log and the events behind it, what was served otherwise is found, and what was on its way is not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from driftline.archive.columns import INSTANT, placed
from driftline.archive.sink import Span, TopicTable
from driftline.archive.tables import TOPICS, Archive
from driftline.features import FeatureView, count, derived, feature, last
from driftline.features.event_columns import micros, request_keys
from driftline.features.joining import joined_values
from driftline.project import Project
from driftline.replay.parity import ParityLook, as_served, look_at_parity
from driftline.replay.recomputing import join_as_logged
from driftline.replay.records import ArchiveRecords
from driftline.streaming.partitions import Partition

from .conftest import NOW_US, ROWS, store
from .test_recomputing import payments

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
COUNT, LAST = "customer_payments__count_1h", "customer_payments__last_amount"
#: The longest window: a request of the past still finds its tiles.
MEAN = "customer_payments__mean_amount_1d"
ANSWERED = ROWS * 9 // 10


def served(log: pa.Table, events: pa.Table, project: Project) -> pa.Table:
    """Return the log as it would be, had the store served each request what these events say, ages too."""
    seen: set[str] = set()
    first = [one not in seen and not seen.add(one) for one in events["event_id"].to_pylist()]  # type: ignore[func-returns-value]
    once = events.filter(pa.array(first))
    for view in project.request_views:
        keys = request_keys(view.entity, log).to_pylist()
        as_of_us, answered_us = micros(log["event_time"]), micros(log["predicted_at"])
        found = as_served(
            joined_values(view, lambda part: join_as_logged(part, once, keys, as_of_us, answered_us))  # noqa: B023
        )
        for name, column in zip((*view.columns, view.age_column), found.T, strict=True):
            values = pa.array(np.ascontiguousarray(column), mask=np.isnan(column))
            place = log.column_names.index(name)
            log = log.set_column(place, name, values.cast(log.schema.field(name).type))
    return log


def changed(log: pa.Table, name: str, **cells: Any) -> pa.Table:
    """Return the log with other values in a column, by row: ``r3=1.5``."""
    values = log[name].to_pylist()
    for row, value in cells.items():
        values[int(row.removeprefix("r"))] = value
    return log.set_column(log.column_names.index(name), name, pa.array(values, log.schema.field(name).type))


def look(project: Project, archive: Archive, **options: Any) -> ParityLook:
    records = ArchiveRecords(archive, lambda _: None)
    return look_at_parity(
        project, records, since_us=NOW_US - HOUR_US, until_us=NOW_US + 24 * HOUR_US, **options
    )


def test_what_was_served_from_these_events_is_equal(
    log: pa.Table, archive: Archive, project: Project
) -> None:
    store(archive, "payments", payments())
    store(archive, "predictions", served(log, payments(), project))
    found = look(project, archive)
    assert (found.requests, found.different, found.other_versions) == (ROWS, (), 0)
    assert found.values == ANSWERED * 12  # ten features and two ages
    assert found.mismatch_rates() == {"customer_payments@1": 0.0, "merchant_payments@1": 0.0}
    assert found.as_json()["equal"] is True


def test_what_differs_is_told_by_feature_with_rate_and_size(
    log: pa.Table, archive: Archive, project: Project
) -> None:
    store(archive, "payments", payments())
    right = served(log, payments(), project)
    wrong = changed(right, COUNT, r1=right[COUNT][1].as_py() + 3, r4=right[COUNT][4].as_py() - 1)
    wrong = changed(wrong, LAST, r2=None)
    wrong = changed(wrong, "customer_payments__age_ms", r5=right["customer_payments__age_ms"][5].as_py() + 1)
    store(archive, "predictions", wrong)
    found = look(project, archive)
    by_name = {one.column: one for one in found.different}
    assert set(by_name) == {COUNT, LAST, "customer_payments__age_ms"}
    assert (by_name[COUNT].different, by_name[COUNT].compared) == (2, ANSWERED)
    assert by_name[COUNT].as_json()["max_difference"] == 3.0
    assert by_name[COUNT].as_json()["mean_difference"] == 2.0
    assert by_name[COUNT].example == log["request_id"][1].as_py()
    assert (by_name[LAST].nulls, by_name[LAST].as_json()["max_difference"]) == (1, None)
    assert found.mismatch_rates() == {
        "customer_payments@1": 4 / (ANSWERED * 7),
        "merchant_payments@1": 0.0,
    }


def test_what_was_served_without_the_store_is_no_mismatch(
    log: pa.Table, archive: Archive, project: Project
) -> None:
    store(archive, "payments", payments())
    wrong = changed(served(log, payments(), project), COUNT, r1=1e6, r4=None)
    store(archive, "predictions", changed(wrong, "degraded", r1="no store", r4="no store"))
    found = look(project, archive)
    assert (found.requests, found.different) == (ROWS, ())
    assert found.values == (ANSWERED - 2) * 12


def late_payments(log: pa.Table, row: int, agos_us: list[int], partition: int) -> pa.Table:
    """Return payments of a request's customer, made and logged so long before its instant and its answer."""
    answered = micros(log["predicted_at"])[row]
    logged = np.array([answered - ago for ago in agos_us], np.int64)
    paid = micros(log["event_time"])[row] - np.array(agos_us, np.int64)
    table = pa.table(
        {
            "event_id": [f"late-{partition}-{number}" for number in range(len(agos_us))],
            "customer": [log["customer"][row].as_py()] * len(agos_us),
            "merchant": [f"far-{partition}"] * len(agos_us),
            "paid_at": pa.array(paid).cast(INSTANT),
            "amount": [1_000.0 * (partition + 1) + number for number in range(len(agos_us))],
            "refunded": [False] * len(agos_us),
        }
    )
    return placed(
        table,
        partition=partition,
        offsets=range(1_000, 1_000 + len(agos_us)),
        timestamps_ms=logged // 1_000,
        event_times=("paid_at",),
    )


def store_both(archive: Archive, first: pa.Table, second: pa.Table) -> None:
    """Commit events of partitions 0 and 1."""
    topic = f"{archive.prefix}.payments"
    table = TopicTable(archive.table(TOPICS, "payments"), group=archive.group("archiver"))
    spans = [Span(partition=Partition(topic, number), start=None, stop=2_000) for number in (0, 1)]
    table.append(pa.concat_tables([first, second]), spans)


@pytest.mark.parametrize(("applied", "unapplied"), [([], [0, 1]), ([0], [1]), ([1], [0])])
def test_an_event_on_its_way_is_no_mismatch(
    log: pa.Table, archive: Archive, project: Project, applied: list[int], unapplied: list[int]
) -> None:
    """The store had applied some of the late events of the two partitions, in whatever order they were logged."""
    row = ROWS - 2  # of the last answers, so that nobody else knows the late events
    late = [late_payments(log, row, [2 * SECOND_US, SECOND_US], 0), late_payments(log, row, [1_500_000], 1)]
    known = pa.concat_tables([payments(), *(late[number] for number in applied)])
    assert applied + unapplied
    store_both(archive, pa.concat_tables([payments(), late[0]]), late[1])
    store(archive, "predictions", served(log, known, project))
    found = look(project, archive)
    assert found.different == ()
    flying = {one.column for one in found.columns.values() if one.in_flight}
    assert MEAN in flying
    strict = look(project, archive, grace_us=0)
    assert MEAN in {one.column for one in strict.different}


def test_events_that_were_never_applied_are_a_mismatch(
    log: pa.Table, archive: Archive, project: Project
) -> None:
    row = ROWS - 2
    lost = late_payments(log, row, [60 * SECOND_US], 1)
    store_both(archive, payments(), lost)
    store(archive, "predictions", served(log, payments(), project))
    found = look(project, archive)
    assert MEAN in {one.column for one in found.different}


def test_a_share_is_the_same_at_every_look(log: pa.Table, archive: Archive, project: Project) -> None:
    store(archive, "payments", payments())
    store(archive, "predictions", served(log, payments(), project))
    some = look(project, archive, share=0.3)
    assert 0.15 * ROWS < some.requests < 0.45 * ROWS
    assert look(project, archive, share=0.3).as_json() == some.as_json()
    assert look(project, archive, share=0.6).requests > some.requests


def test_views_that_are_declared_no_more_are_counted(
    log: pa.Table, archive: Archive, project: Project
) -> None:
    store(archive, "payments", payments())
    old = [None if refs is None else [f"{ref}9" for ref in refs] for refs in log["feature_views"].to_pylist()]
    kind = log.schema.field("feature_views").type
    store(
        archive,
        "predictions",
        log.set_column(log.column_names.index("feature_views"), "feature_views", pa.array(old, kind)),
    )
    found = look(project, archive)
    assert found.values == 0
    assert found.other_versions == pc.sum(pc.greater(pc.list_value_length(pa.array(old, kind)), 0)).as_py()


@pytest.fixture
def joining(project: Project, log: pa.Table) -> tuple[Project, pa.Table]:
    """The project and its log, with a view of two sources beside the others."""
    fraud = project.models["fraud"]
    own = project.views["customer_payments"]
    other = replace(own.source, name="other")
    view = FeatureView(
        "customer_now",
        1,
        own.source,
        [
            count().over("24h"),
            last("amount").of(other),
            derived("part", feature("other_last_amount") / feature("customer_payments__mean_amount_1d")),
        ],
        joins=[other, own],
    )
    refs = [[*refs, view.ref] if refs else refs for refs in log["feature_views"].to_pylist()]
    place = log.column_names.index("feature_views")
    log = log.set_column(place, "feature_views", pa.array(refs, log.schema.field("feature_views").type))
    for name in view.columns:
        log = log.append_column(name, pa.nulls(len(log), pa.float64()))
    log = log.append_column(view.age_column, pa.nulls(len(log), pa.int64()))
    models = {"fraud": replace(fraud, views=(*fraud.views, view))}
    return replace(project, views={**project.views, view.name: view}, models=models), log


def test_a_joined_view_is_computed_again_from_its_sources(
    joining: tuple[Project, pa.Table], archive: Archive
) -> None:
    project, log = joining
    store(archive, "payments", payments())
    right = served(log, payments(), project)
    store(archive, "predictions", changed(right, "customer_now__part", r3=-1.0))
    found = look(project, archive)
    (different,) = found.different
    assert (different.column, different.different, different.view) == (
        "customer_now__part",
        1,
        "customer_now@1",
    )
    assert found.values == ANSWERED * (12 + 4)


def test_an_event_on_its_way_to_a_source_is_no_mismatch_of_the_joined_view(
    joining: tuple[Project, pa.Table], archive: Archive
) -> None:
    project, log = joining
    row = ROWS - 2
    late = late_payments(log, row, [SECOND_US], 1)
    store_both(archive, payments(), late)
    store(archive, "predictions", served(log, payments(), project))
    found = look(project, archive)
    assert found.different == ()
    flying = {one.column for one in found.columns.values() if one.in_flight}
    assert {"customer_now__part", "customer_now__count_1d"} <= flying
    assert {"customer_now__part"} <= {one.column for one in look(project, archive, grace_us=0).different}
