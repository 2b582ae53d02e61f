"""What happened to a project, in the order of time: views, deprecations, models, drift, retrains, alerts. Pure.

Each entry has the time at which it was written, and comes from one record of a topic. A version of a view appears with
the first version of a model that learned from it, and disappears when no champion reads it any more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from driftline.alerts.alert import Alert, to_iso
from driftline.alerts.kinds import DEPRECATED
from driftline.models.lifecycle import fold
from driftline.models.model_event import Kind, ModelEvent
from driftline.runtime.clock import instant_us

_Record = TypeVar("_Record")


class Subject(StrEnum):
    """What an entry is about."""

    VIEW = "view"
    DEPRECATION = "deprecation"
    MODEL = "model"
    DRIFT = "drift"
    RETRAIN = "retrain"
    ALERT = "alert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the feed: when (microseconds), about what, of which model, in words; the record it comes from."""

    at_us: int
    subject: Subject
    model: str | None
    text: str
    by: str
    record_id: str

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, its time in ISO 8601."""
        return {
            "at": to_iso(self.at_us),
            "subject": self.subject.value,
            "model": self.model,
            "text": self.text,
            "by": self.by,
            "record_id": self.record_id,
        }


def feed(
    model_events: Sequence[ModelEvent],
    drift_signals: Iterable[Mapping[str, Any]],
    retrain_requests: Iterable[Mapping[str, Any]],
    alerts: Iterable[Alert],
) -> list[Entry]:
    """Return everything in the order of time; a record that came twice is told once."""
    events = sorted(_once(model_events, lambda one: one.event_id), key=lambda one: one.at_us)
    signals = _once(drift_signals, lambda one: one["signal_id"])
    requests = _once(retrain_requests, lambda one: one["request_id"])
    found = [
        *(_model_entry(one) for one in events),
        *_view_entries(events),
        *_trained_on_deprecated(events),
        *map(_drift_entry, signals),
        *map(_retrain_entry, requests),
        *_alert_entries(alerts),
    ]
    return sorted(found, key=lambda one: one.at_us)


def _once(records: Iterable[_Record], identity: Callable[[_Record], str]) -> list[_Record]:
    found: dict[str, _Record] = {}
    for one in records:
        found.setdefault(identity(one), one)
    return list(found.values())


def _model_entry(event: ModelEvent) -> Entry:
    what = event.kind.value.lower().replace("_", " ")
    what = f"asked to {what}" if event.kind.is_command else what
    return _of_event(
        event, Subject.MODEL, f"{f'{event.version} ' if event.version else ''}{what}: {event.reason}"
    )


def _of_event(event: ModelEvent, subject: Subject, text: str) -> Entry:
    return Entry(
        at_us=event.at_us,
        subject=subject,
        model=event.model,
        text=text,
        by=event.by,
        record_id=event.event_id,
    )


def _view_entries(events: Sequence[ModelEvent]) -> Iterator[Entry]:
    """Yield the view versions that models begin to learn from, and those that no champion reads any more."""
    views = {(one.model, one.version): views for one in events if (views := _views_of(one))}
    champion_after = {
        reign.event_id: reign.version
        for model in dict.fromkeys(one.model for one in events)
        for reign in fold(model, events).reigns
    }
    known: set[str] = set()
    reading: dict[str, tuple[str, ...]] = {}
    for event in events:
        for ref in _views_of(event):
            if ref not in known:
                yield _of_event(event, Subject.VIEW, f"{ref} appeared: {event.version} learned from it")
                known.add(ref)
        if event.event_id not in champion_after:
            continue
        before = reading.get(event.model, ())
        reading[event.model] = views.get((event.model, champion_after[event.event_id]), ())
        still = {ref for refs in reading.values() for ref in refs}
        for ref in before:
            if ref not in still:
                yield _of_event(event, Subject.VIEW, f"{ref} disappeared: no champion reads it any more")


def _views_of(event: ModelEvent) -> tuple[str, ...]:
    return _texts(event, "views") if event.kind is Kind.REGISTERED else ()


def _trained_on_deprecated(events: Iterable[ModelEvent]) -> Iterator[Entry]:
    for event in events:
        if event.kind is Kind.REGISTERED:
            for told in _texts(event, "deprecated"):
                yield _of_event(event, Subject.DEPRECATION, f"{event.version} was trained on it: {told}")


def _texts(event: ModelEvent, name: str) -> tuple[str, ...]:
    found = event.told.get(name)
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _drift_entry(signal: Mapping[str, Any]) -> Entry:
    where = f" where {signal['segment']}" if signal["segment"] else ""
    what = f"{signal['level'].lower()}{where}: {signal['explanation']}"
    return Entry(
        at_us=instant_us(signal["raised_at"]),
        subject=Subject.DRIFT,
        model=signal["model"],
        text=f"{signal['model_version']} {what}",
        by="drift_monitor",
        record_id=signal["signal_id"],
    )


def _retrain_entry(request: Mapping[str, Any]) -> Entry:
    return Entry(
        at_us=instant_us(request["requested_at"]),
        subject=Subject.RETRAIN,
        model=request["model"],
        text=f"retrain asked for, {request['cause'].lower()}: {request['reason']}",
        by=request["requested_by"],
        record_id=request["request_id"],
    )


def _alert_entries(alerts: Iterable[Alert]) -> Iterator[Entry]:
    """Yield what people were told of an alert: its status and severity, not every further cause."""
    standing: dict[str, tuple[str, str]] = {}
    for alert in sorted(alerts, key=lambda one: one.at):
        now = (alert.status, alert.severity)
        if standing.get(alert.alert_id) == now:
            continue
        standing[alert.alert_id] = now
        deprecated = alert.group.endswith(f"/{DEPRECATED}")
        yield Entry(
            at_us=alert.at,
            subject=Subject.DEPRECATION if deprecated else Subject.ALERT,
            model=alert.model,
            text=f"{alert.status.lower()}, {alert.severity.lower()}, for {alert.team}: {alert.title}",
            by=alert.by,
            record_id=alert.alert_id,
        )
