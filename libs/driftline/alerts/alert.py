"""The record of an alert, as the ``alerts`` topic carries it."""

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from driftline.runtime.clock import instant_us

#: Made once, at random, for the ids of alerts and notifications.
_NAMESPACE = uuid.UUID("8c1f6d0b-4a8e-4f57-9b0a-2f4c6f3b7e15")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES = ("started_at", "updated_at", "at")


class Severity(StrEnum):
    """How urgent something is; ``rank`` orders them."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"

    @property
    def rank(self) -> int:
        """Zero for what can wait, then one more for each step."""
        return list(Severity).index(self)


class AlertStatus(StrEnum):
    """Where an alert stands."""

    FIRING = "FIRING"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    SILENCED = "SILENCED"
    RESOLVED = "RESOLVED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert after one change of it. Times are microseconds since the epoch, UTC; see ``schemas/alert.avsc``."""

    alert_id: str
    group: str
    status: AlertStatus
    severity: Severity
    source: str
    model: str | None
    team: str
    title: str
    text: str
    runbook: str | None
    cause_id: str
    count: int
    started_at: int
    updated_at: int
    notified: tuple[str, ...]
    by: str
    at: int

    def as_record(self) -> dict[str, Any]:
        """Return the record of ``schemas/alert.avsc``."""
        return {**asdict(self), "notified": list(self.notified)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the alert of a decoded record."""
        values = dict(record)
        values["status"], values["severity"] = AlertStatus(values["status"]), Severity(values["severity"])
        values["notified"] = tuple(values["notified"])
        values |= {name: instant_us(values[name]) for name in _TIMES}
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, with times in ISO 8601."""
        return {**self.as_record(), **{name: to_iso(getattr(self, name)) for name in _TIMES}}


def stable_id(*what: str | int) -> str:
    """Return the UUID (version 5) that stands for some parts: the same parts have the same id, always.

    >>> stable_id("flights/lateness/drift", "s1") == stable_id("flights/lateness/drift", "s1")
    True
    """
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(map(str, what))))


def to_time(microseconds: int) -> datetime:
    """Return microseconds since the epoch as a time, UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def to_iso(microseconds: int) -> str:
    """Return microseconds since the epoch in ISO 8601.

    >>> to_iso(1_370_822_400_000_000)
    '2013-06-10T00:00:00Z'
    """
    return to_time(microseconds).isoformat().replace("+00:00", "Z")
