"""A record that went through the log answers with the same bytes, and only the request that it answers."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import frame
from driftline.project import Project, load_project
from driftline.runtime.errors import UnavailableError
from driftline.serving.kept_answers import KeptAnswers, RepeatedRecord
from services.predictor.answers import Answers
from services.predictor.settings import PredictorSettings

PROJECT = load_project(Path(__file__).parents[2] / "e2e" / "shop")
SCHEMA = prediction_schema(PROJECT)
NOW_US = 1_750_000_000_123_456


@pytest.fixture(scope="module")
def project() -> Project:
    return PROJECT


@pytest.fixture(scope="module")
def kept() -> KeptAnswers:
    return KeptAnswers(PROJECT, lambda _id: SCHEMA)


def record(**changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(one["name"] for one in SCHEMA["fields"])
    return {
        **nothing,
        "request_id": "0190a6c5-7b2e-7c11-8000-0123456789ab",
        "model": "fraud",
        "model_version": "1",
        "channel": "HTTP",
        "status": "ANSWERED",
        "score": 0.1,
        "decision": "accept",
        "requested_at": NOW_US,
        "event_time": NOW_US,
        "predicted_at": NOW_US + 5,
        "duration_us": 7,
        "feature_views": [],
        "customer": "c1",
        "merchant": "m1",
        "amount": 1.5,
        **changes,
    }


@given(
    score=st.floats(0, 1),
    feature=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    instant=st.integers(0, 4_000_000_000_000_000),
)
def test_through_the_log_the_answer_has_the_same_bytes(
    score: float, feature: float | None, instant: int
) -> None:
    kept = KeptAnswers(PROJECT, lambda _id: SCHEMA)
    column = next(name for view in PROJECT.request_views for name in view.columns)
    made = record(score=score, event_time=instant, **{column: feature})
    read = kept.read(frame(3, RecordCodec(SCHEMA).encode(made)))
    assert isinstance(read, RepeatedRecord)
    answers = Answers(PROJECT.models["fraud"])
    assert answers.json(read) == answers.json(made)
    assert dict(read) == made


def test_an_older_schemas_answer_is_read_as_the_log_is() -> None:
    older = {**SCHEMA, "fields": SCHEMA["fields"][:-1]}
    made = record()
    value = frame(2, RecordCodec(older).encode(made))
    assert dict(KeptAnswers(PROJECT, {2: older}.__getitem__).read(value)) == made


@pytest.mark.parametrize("value", [b"", b"\x00\x00\x00\x00\x07", b"\x07nothing"])
def test_bytes_that_are_no_record_are_said(kept: KeptAnswers, value: bytes) -> None:
    with pytest.raises(UnavailableError, match="answer of before"):
        kept.read(value)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, []),
        ({"caller": "who else", "request_id": "x"}, []),
        ({"amount": 1.25}, ["amount"]),
        ({"amount": None, "customer": "c2", "model": "other"}, ["amount", "customer", "model"]),
        ({"requested_at": NOW_US + 9, "event_time": NOW_US + 9}, []),  # neither names an instant
        ({"requested_at": NOW_US + 9, "event_time": NOW_US}, []),  # one of them does
    ],
)
def test_what_a_request_asks_otherwise(kept: KeptAnswers, changes: dict[str, Any], names: list[str]) -> None:
    assert sorted(kept.differences(record(), record(**changes))) == names


def test_instants_that_both_name_count(kept: KeptAnswers) -> None:
    first = record(event_time=NOW_US - 1)
    assert kept.differences(first, record(event_time=NOW_US - 1, requested_at=NOW_US + 9)) == []
    assert kept.differences(first, record(event_time=NOW_US - 2)) == ["event_time"]


@pytest.mark.parametrize(
    ("seconds", "good"), [(0, True), (60, True), (86_400, True), (59, False), (-1, False)]
)
def test_answers_are_kept_for_a_minute_or_not_at_all(seconds: int, good: bool) -> None:
    named = {
        "DRIFTLINE_ANSWER_SECONDS": seconds,
        "KAFKA_BOOTSTRAP_SERVERS": "x",
        "SCHEMA_REGISTRY_URL": "http://x",
    }
    if good:
        assert PredictorSettings.model_validate(named).answer_seconds == seconds
    else:
        with pytest.raises(ValidationError, match="DRIFTLINE_ANSWER_SECONDS"):
            PredictorSettings.model_validate(named)
