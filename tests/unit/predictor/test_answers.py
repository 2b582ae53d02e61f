"""An answer is the log's record, told by view."""

import math
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.project import ModelDeclaration, load_project
from services.predictor.answers import Answers, instant_text


@pytest.fixture(scope="module")
def declaration() -> ModelDeclaration:
    return load_project(Path(__file__).parents[2] / "e2e" / "shop").models["fraud"]


def record(declaration: ModelDeclaration, age_ms: int | None, degraded: str | None = None) -> dict[str, Any]:
    logged: dict[str, Any] = {
        "request_id": "0190a6c5-7b2e-7c11-8000-0123456789ab",
        "status": "ANSWERED",
        "score": 0.1 + 0.2,
        "decision": "accept",
        "model": "fraud",
        "model_version": "7",
        "event_time": 1_364_817_600_000_001,
        "degraded": degraded,
    }
    for view in declaration.views:
        logged[view.age_column] = age_ms
        logged |= {column: float(number) for number, column in enumerate(view.columns)}
    return logged


@pytest.mark.parametrize(
    ("age_ms", "status"), [(None, "missing"), (0, "fresh"), (1_000, "fresh"), (1_001, "stale")]
)
def test_values_come_with_version_age_and_status(
    declaration: ModelDeclaration, age_ms: int | None, status: str
) -> None:
    views = tuple(replace(view, ttl="1s") for view in declaration.views)
    answer = Answers(replace(declaration, views=views)).of(record(declaration, age_ms))
    assert (answer["version"], answer["decision"], answer["score"]) == ("7", "accept", 0.1 + 0.2)
    assert answer["event_time"] == "2013-04-01T12:00:00.000001Z"
    assert list(answer["features"]) == ["customer_payments", "merchant_payments"]
    for view in views:
        served = answer["features"][view.name]
        assert (served["version"], served["age_ms"], served["status"]) == (1, age_ms, status)
        assert list(served["values"].values()) == [float(n) for n in range(len(view.features))]


def test_an_answer_without_the_store_says_so_for_each_view(declaration: ModelDeclaration) -> None:
    answer = Answers(declaration).of(record(declaration, None, "no store"))
    assert answer["degraded"] == "no store"
    assert {served["status"] for served in answer["features"].values()} == {"degraded"}


def test_an_answers_bytes_stay_as_callers_know_them(declaration: ModelDeclaration) -> None:
    views = tuple(replace(view, features=view.features[:1]) for view in declaration.views)
    logged = record(declaration, 5) | {views[1].columns[0]: math.nan}
    first, second = (view.features[0].name for view in views)
    assert Answers(replace(declaration, views=views)).json(logged).decode() == (
        '{"request_id":"0190a6c5-7b2e-7c11-8000-0123456789ab","status":"ANSWERED","score":0.30000000000000004,'
        '"decision":"accept","model":"fraud","version":"7","event_time":"2013-04-01T12:00:00.000001Z","degraded":null,'
        '"features":{"customer_payments":{"version":1,"age_ms":5,"status":"fresh","values":{"'
        + first
        + '":0.0}},'
        '"merchant_payments":{"version":1,"age_ms":5,"status":"fresh","values":{"' + second + '":null}}}}'
    )


@given(st.datetimes())
def test_an_instant_is_told_as_it_is(instant: datetime) -> None:
    instant_us = (instant - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    assert instant_text(instant_us) == instant.isoformat() + "Z"
