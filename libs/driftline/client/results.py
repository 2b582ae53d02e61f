"""What applications get back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class EventResult:
    """What became of one event: ``accepted``, ``rejected`` (see ``error``) or ``unknown`` (send it again)."""

    event_id: str | None
    status: str
    error: str | None = None
    partition: int | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """What became of a list of events, in its order. The broker has every accepted one."""

    results: Sequence[EventResult]

    @property
    def accepted(self) -> int:
        """How many the broker has."""
        return sum(result.status == "accepted" for result in self.results)

    @property
    def rejected(self) -> Sequence[EventResult]:
        """Those that are wrong."""
        return [result for result in self.results if result.status == "rejected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedView:
    """A feature view as it was served: its values, None where there is none, and their age."""

    version: int
    status: str
    age_ms: int | None
    values: Mapping[str, float | None]
    #: The values that are declared defaults, served for want of others; told where features are read by themselves.
    defaults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionAnswer:
    """A model's answer. It is in the prediction log under ``request_id``."""

    request_id: str
    status: str
    score: float | None
    decision: str | None
    model: str
    version: str | None
    event_time: datetime
    features: Mapping[str, ServedView]
    #: Why the features are defaults: the store did not answer in time, and the model is declared to do without. Else None.
    degraded: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityFeatures:
    """An entity's features in one view, as of an instant."""

    view: str
    entity: str
    as_of: datetime
    served: ServedView


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedPrediction:
    """A record of the prediction log. ``values`` holds the project's own fields: entities, inputs, features."""

    request_id: str
    model: str
    model_version: str | None
    channel: str
    status: str
    score: float | None
    decision: str | None
    error: str | None
    requested_at: datetime
    event_time: datetime
    predicted_at: datetime
    duration_us: int
    caller: str | None
    feature_views: Sequence[str]
    values: Mapping[str, Any]
    degraded: str | None = None
