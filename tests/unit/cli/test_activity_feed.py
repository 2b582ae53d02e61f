"""The feed tells everything once, in the order of time, and which versions of views come and go."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from driftline.alerts.alert import Alert, AlertStatus, Severity
from driftline.cli.activity import begin_us, line
from driftline.cli.activity_feed import Entry, Subject, feed
from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.models.model_event import Kind, ModelEvent
from driftline.runtime.errors import ConfigurationError
from tests.unit.alerts.test_causes import example

SECOND = 1_000_000


def event(at: int, kind: Kind, version: str, *, model: str = "lateness", **evidence: Any) -> ModelEvent:
    return ModelEvent(
        event_id=f"{model}-{version}-{kind}",
        model=model,
        kind=kind,
        effective_us=at * SECOND,
        reason="because",
        by="registry",
        at_us=at * SECOND,
        version=version,
        evidence=json.dumps(evidence),
    )


def reign(at: int, version: str, *views: str, model: str = "lateness") -> list[ModelEvent]:
    """A version that is registered with its views, and promoted."""
    return [
        event(at, Kind.REGISTERED, version, model=model, views=list(views)),
        event(at + 1, Kind.VALIDATED, version, model=model),
        event(at + 2, Kind.PROMOTED, version, model=model),
    ]


def told(subject: Subject, entries: list[Entry]) -> list[tuple[int, str]]:
    return [(one.at_us // SECOND, one.text) for one in entries if one.subject is subject]


def alert(at: int, status: AlertStatus, severity: Severity = Severity.WARNING, **changes: Any) -> Alert:
    record = example("alert", status=status.value, severity=severity.value, **changes)
    return Alert.from_record({**record, "at": at * SECOND})


def test_everything_stands_in_the_order_of_time() -> None:
    signal = example("drift_signal", raised_at=datetime.fromtimestamp(15, UTC))
    request = example("retrain_request", requested_at=datetime.fromtimestamp(25, UTC))
    entries = feed(
        [*reign(30, "v2"), *reign(1, "v1")],
        [signal, signal],
        [request],
        [alert(20, AlertStatus.FIRING)],
    )
    assert [(one.at_us // SECOND, one.subject.value) for one in entries] == [
        *((at, "model") for at in (1, 2, 3)),
        (15, "drift"),
        (20, "alert"),
        (25, "retrain"),
        *((at, "model") for at in (30, 31, 32)),
    ]
    assert entries[3].text.startswith("20130401T000000Z-1a2b3c alert: log loss rose")
    assert entries[5].text == "retrain asked for, drift: log loss rose by 0.041 since training"
    assert entries[2].text == "v1 promoted: because"


def test_versions_of_views_appear_and_disappear() -> None:
    events = [
        *reign(1, "v1", "origin@1", "dest@1"),
        *reign(11, "v2", "origin@2", "dest@1"),
        *reign(21, "v3", "origin@2"),
    ]
    assert told(Subject.VIEW, feed(events, [], [], [])) == [
        (1, "origin@1 appeared: v1 learned from it"),
        (1, "dest@1 appeared: v1 learned from it"),
        (11, "origin@2 appeared: v2 learned from it"),
        (13, "origin@1 disappeared: no champion reads it any more"),
        (23, "dest@1 disappeared: no champion reads it any more"),
    ]


def test_a_view_that_another_model_reads_stays() -> None:
    events = [
        *reign(1, "v1", "origin@1"),
        *reign(5, "w1", "origin@1", model="cancelled"),
        *reign(11, "v2", "dest@1"),
    ]
    assert [text for _, text in told(Subject.VIEW, feed(events, [], [], []))] == [
        "origin@1 appeared: v1 learned from it",
        "dest@1 appeared: v2 learned from it",
    ]


def test_a_rollback_brings_the_views_of_before_back() -> None:
    events = [*reign(1, "v1", "origin@1"), *reign(11, "v2", "origin@2"), event(21, Kind.ROLLED_BACK, "v2")]
    assert told(Subject.VIEW, feed(events, [], [], []))[-1] == (
        21,
        "origin@2 disappeared: no champion reads it any more",
    )


def test_a_version_that_was_never_champion_takes_no_view_away() -> None:
    events = [*reign(1, "v1", "origin@1"), event(9, Kind.REGISTERED, "v2", views=["origin@2"])]
    texts = [text for _, text in told(Subject.VIEW, feed(events, [], [], []))]
    assert texts == ["origin@1 appeared: v1 learned from it", "origin@2 appeared: v2 learned from it"]


def test_deprecations_are_told_by_trainings_and_alerts() -> None:
    entries = feed(
        [event(5, Kind.REGISTERED, "v1", deprecated=["origin@1 is deprecated"])],
        [],
        [],
        [
            alert(
                7,
                AlertStatus.FIRING,
                group="flights/lateness/deprecated",
                title="reads origin@1",
                team="model-team",
            )
        ],
    )
    assert told(Subject.DEPRECATION, entries) == [
        (5, "v1 was trained on it: origin@1 is deprecated"),
        (7, "firing, warning, for model-team: reads origin@1"),
    ]
    assert told(Subject.ALERT, entries) == []


def test_of_an_alert_what_changes_for_people() -> None:
    changes = [
        alert(1, AlertStatus.FIRING),
        alert(2, AlertStatus.FIRING, count=3),
        alert(3, AlertStatus.FIRING, Severity.CRITICAL),
        alert(4, AlertStatus.ACKNOWLEDGED, Severity.CRITICAL),
        alert(4, AlertStatus.ACKNOWLEDGED, Severity.CRITICAL),
        alert(9, AlertStatus.RESOLVED, Severity.CRITICAL),
    ]
    assert [one.at_us // SECOND for one in feed([], [], [], changes)] == [1, 3, 4, 9]


def test_an_older_registration_says_nothing_of_views() -> None:
    assert told(Subject.VIEW, feed(reign(1, "v1"), [], [], [])) == []
    odd = [event(1, Kind.REGISTERED, "v1", views="origin@1")]
    assert told(Subject.VIEW, feed(odd, [], [], [])) == []


def test_a_command_is_told_as_one() -> None:
    (entry,) = feed([event(1, Kind.PROMOTE, "v1")], [], [], [])
    assert entry.text == "v1 asked to promote: because"


def test_records_as_the_topics_carry_them() -> None:
    """A real round trip through the schemas, so that the fields' names and types are theirs."""
    codec = RecordCodec(platform_schema("model_event"))
    record = codec.decode(codec.encode(reign(1, "v1", "origin@1")[0].record()))
    (view,) = [one for one in feed([ModelEvent.of(record)], [], [], []) if one.subject is Subject.VIEW]
    assert view.as_json() == {
        "at": "1970-01-01T00:00:01Z",
        "subject": "view",
        "model": "lateness",
        "text": "origin@1 appeared: v1 learned from it",
        "by": "registry",
        "record_id": "lateness-v1-REGISTERED",
    }
    assert line(view) == (
        "1970-01-01T00:00:01Z [cyan]view       [/] lateness: origin@1 appeared: v1 learned from it (registry)"
    )


def test_since_is_a_duration_or_an_instant() -> None:
    assert begin_us("2d", 200_000 * SECOND) == 27_200 * SECOND
    with pytest.raises(ConfigurationError, match="neither a duration, like 7d, nor an instant"):
        begin_us("yesterday", 0)
