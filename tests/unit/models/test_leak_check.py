"""Leaks are planted, one of each kind, and each is found; a clean set passes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driftline.features import FeatureView, count, derived, feature, last
from driftline.models import plain_features
from driftline.models.leak_check import check_leaks
from driftline.models.leak_report import Evidence, LeakReport
from driftline.models.training_set import Rows, assemble, join_as_known
from driftline.project import load_project
from driftline.project.history import History

PROJECT = load_project(Path(__file__).parents[2] / "e2e" / "shop")
MODEL = PROJECT.models["fraud"]
HOUR = 3_600_000_000
START = 1_700_000_000_000_000
REQUESTS, EVENTS = 1_000, 6_000
SAMPLE = 80


def instants(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.int64()).cast(pa.timestamp("us"))


def payments() -> pa.Table:
    """Payments that become known twenty minutes after they were made."""
    random = np.random.default_rng(1)
    paid = np.sort(START + random.integers(0, 100 * HOUR, EVENTS))
    return pa.table(
        {
            "event_id": [f"e{number}" for number in range(EVENTS)],
            "customer": [f"c{number}" for number in random.integers(0, 8, EVENTS)],
            "merchant": [f"m{number}" for number in random.integers(0, 3, EVENTS)],
            "paid_at": instants(paid),
            "amount": pa.array(random.normal(60, 20, EVENTS), mask=random.random(EVENTS) < 0.05),
            "refunded": random.random(EVENTS) < 0.2,
            "known_at": instants(paid + HOUR // 3),
        }
    )


def requests() -> pa.Table:
    """Requests whose label is known six hours later."""
    random = np.random.default_rng(2)
    asked = np.sort(START + random.integers(24 * HOUR, 90 * HOUR, REQUESTS))
    return pa.table(
        {
            "request_id": [f"r{number}" for number in range(REQUESTS)],
            "event_time": instants(asked),
            "customer": [f"c{number}" if number < 8 else None for number in random.integers(0, 9, REQUESTS)],
            "merchant": [f"m{number}" for number in random.integers(0, 3, REQUESTS)],
            "amount": random.normal(60, 20, REQUESTS),
            "order_id": [f"o{number}" for number in range(REQUESTS)],
            "label": random.random(REQUESTS) < 0.3,
            "label_known_at": instants(asked + 6 * HOUR),
        }
    )


def check(
    asked: pa.Table, *, joined: pa.Table | None = None, events: pa.Table | None = None, **options: Any
) -> LeakReport:
    """Check the set that is made of requests; ``joined`` are the events that its features were made of."""
    events = payments() if events is None else events
    history = History(events={"payments": events if joined is None else joined}, requests=asked)
    return examine(assemble(MODEL, history, asked), asked, events, **options)


def examine(rows: Rows, asked: pa.Table, events: pa.Table, **options: Any) -> LeakReport:
    evidence = Evidence(
        events={"payments": events},
        requests=asked,
        answered_us=asked["event_time"].cast(pa.int64()).to_numpy(),
        join=join_as_known,
        future_skew_us=PROJECT.future_skew_us,
    )
    return check_leaks(MODEL, rows, evidence, sample=SAMPLE, **options)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def found(report: LeakReport) -> dict[str, str]:
    assert not report.clean
    return {one.column: one.text for one in report.findings}


def test_a_clean_set_passes() -> None:
    report = check(requests())
    assert report.clean
    assert report.findings == report.accepted == ()
    assert (report.rows, report.sampled, report.values) == (REQUESTS, SAMPLE, SAMPLE * 10)
    assert report.by_kernels == report.unjudged == ()
    assert report.as_json()["clean"] is True


def test_features_joined_at_the_labels_time_are_found_and_named_so() -> None:
    asked = requests()
    late = with_column(asked, "event_time", asked["label_known_at"].combine_chunks())
    history = History(events={"payments": payments()}, requests=late)
    rows = replace(assemble(MODEL, history, late), as_of_us=asked["event_time"].cast(pa.int64()).to_numpy())
    texts = found(examine(rows, asked, payments()))
    assert set(texts) >= {"customer_payments__mean_amount_1d", "merchant_payments__rate_refunded_1d"}
    assert "joined too late" in texts["merchant_payments__rate_refunded_1d"]


def test_events_that_were_not_known_yet_are_found() -> None:
    events = payments()
    texts = found(
        check(requests(), joined=with_column(events, "known_at", events["paid_at"].combine_chunks()))
    )
    assert "customer_payments__last_amount" in texts
    assert "differs from what was known at the instant" in texts["customer_payments__last_amount"]


@pytest.mark.parametrize("column", ["customer_payments__std_amount_1d", "merchant_payments__max_amount_1d"])
def test_one_feature_that_is_off_by_a_bit_is_found(column: str) -> None:
    asked = requests()
    rows = assemble(MODEL, History(events={"payments": payments()}, requests=asked), asked)
    place = MODEL.numeric_columns.index(column)
    rows.numeric[:, place] = np.nextafter(rows.numeric[:, place], np.float32(np.inf))
    assert set(found(examine(rows, asked, payments()))) == {column}


def test_features_that_plain_python_does_not_define_are_read_without_later_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    column = "customer_payments__std_amount_1d"
    monkeypatch.setattr(plain_features, "_AGGREGATES", plain_features._AGGREGATES - {"std"})
    clean = check(requests())
    assert clean.clean
    assert clean.by_kernels == (column,)
    events = payments()
    leaking = check(requests(), joined=with_column(events, "known_at", events["paid_at"].combine_chunks()))
    assert column in found(leaking)


def test_the_label_as_an_input_is_found() -> None:
    asked = requests()
    texts = found(check(with_column(asked, "amount", asked["label"].cast(pa.float64()).combine_chunks())))
    assert texts == {"amount": "equals the label in every row"}


@pytest.mark.parametrize("shape", ["noisy", "folded", "missing"])
def test_an_input_that_nearly_determines_the_label_is_found(shape: str) -> None:
    asked = requests()
    label, noise = asked["label"].to_numpy(), np.random.default_rng(3).normal(size=REQUESTS)
    values = {
        "noisy": label * 10 + noise,
        "folded": np.where(label, np.sign(noise) * 10 + noise, noise / 2),  # large or small, never between
        "missing": np.where(label, np.nan, noise),
    }[shape]
    texts = found(check(with_column(asked, "amount", pa.array(values, from_pandas=True))))
    assert list(texts) == ["amount"]
    assert "gives the label away" in texts["amount"]


def future_amounts(asked: pa.Table) -> list[float | None]:
    """Return of each request the amount of the next payment of its customer at its merchant."""
    events = payments().to_pylist()
    found = []
    for request in asked.to_pylist():
        later = (
            event["amount"]
            for event in events
            if event["known_at"] > request["event_time"]
            and (event["customer"], event["merchant"]) == (request["customer"], request["merchant"])
        )
        found.append(next(later, None))
    return found


def test_a_later_events_value_as_an_input_is_found_and_can_be_accepted() -> None:
    asked = requests()
    planted = with_column(asked, "amount", future_amounts(asked))
    texts = found(check(planted))
    assert list(texts) == ["amount"]
    assert "payments.amount of the same customer, merchant, known only after the request" in texts["amount"]
    accepted = check(planted, accept=["amount"])
    assert accepted.clean
    assert [one.column for one in accepted.accepted] == ["amount"]


def test_labels_that_were_known_before_they_were_asked_for_are_found() -> None:
    asked = requests()
    known = asked["label_known_at"].cast(pa.int64()).to_numpy().copy()
    known[:7] -= 7 * HOUR
    report = check(with_column(asked, "label_known_at", instants(known)))
    assert [(one.column, one.rows) for one in report.findings] == [("label", 7)]


def test_events_that_were_known_before_they_happened_are_found() -> None:
    events = payments()
    known = events["known_at"].cast(pa.int64()).to_numpy().copy()
    known[:5] -= 2 * HOUR
    report = check(requests(), events=with_column(events, "known_at", instants(known)))
    assert [(one.kind, one.column, one.rows) for one in report.findings] == [("event", "payments", 5)]


def test_too_few_rows_say_so() -> None:
    report = check(requests().slice(0, 50))
    assert report.clean
    assert len(report.unjudged) == 1


BY_CUSTOMER = PROJECT.views["customer_payments"]
REFUNDS = replace(BY_CUSTOMER.source, event_type="refunds", name="refunds")
JOINED = FeatureView(
    "customer_now",
    1,
    BY_CUSTOMER.source,
    [
        count().over("1h"),
        derived("both", feature("refunds_last_amount") + feature("customer_payments__last_amount")),
        last("amount").of(REFUNDS),
    ],
    joins=[REFUNDS, BY_CUSTOMER],
)


def examine_joined(*, refunds_known_early: bool) -> LeakReport:
    """Check a set with a view of two sources and another view."""
    model = replace(MODEL, views=(JOINED,), entities=(BY_CUSTOMER.entity,), segments=(), baseline=None)
    asked, refunds = requests(), payments().slice(0, EVENTS // 2)
    early = with_column(refunds, "known_at", refunds["paid_at"].combine_chunks())
    used = {"payments": payments(), "refunds": early if refunds_known_early else refunds}
    rows = assemble(model, History(events=used, requests=asked), asked)
    evidence = Evidence(
        events={"payments": payments(), "refunds": refunds},
        requests=asked,
        answered_us=asked["event_time"].cast(pa.int64()).to_numpy(),
        join=join_as_known,
        future_skew_us=PROJECT.future_skew_us,
    )
    return check_leaks(model, rows, evidence, sample=SAMPLE)


def test_views_of_several_sources_are_checked_source_by_source_and_formulas_by_the_kernels() -> None:
    clean = examine_joined(refunds_known_early=False)
    assert clean.clean, clean.findings
    assert (clean.values, clean.by_kernels) == (SAMPLE * 3, ("customer_now__both",))
    texts = found(examine_joined(refunds_known_early=True))
    assert set(texts) == {"customer_now__refunds_last_amount", "customer_now__both"}
