"""An event type as ingest serves it: what is validated, and where it goes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from driftline.contracts.project_schemas import published_types
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.contracts.wire import MAX_MESSAGE_BYTES, frame
from driftline.project import EventType, Project
from driftline.runtime.clock import Clock
from driftline.runtime.errors import BadMessageError
from driftline.runtime.ids import new_id, parse_id

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyEvent:
    """A valid event, ready for its topic."""

    event_id: str
    key: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EventChannel:
    """Takes an event as JSON, gives what goes to Kafka."""

    event_type: EventType
    topic: str
    schema_id: int
    future_skew_us: int
    clock: Clock
    codec: RecordCodec = field(repr=False)

    def prepare(self, event: Any) -> ReadyEvent:
        """Validate and encode one event; make its UUID where it brings none.

        Raises
        ------
        BadMessageError
            Names the field that is wrong, and what is wanted.
        """
        kind = self.event_type
        if isinstance(event, dict):
            event = {**event, kind.event_id: self.event_id(event)}
        record = self.codec.from_json(event)
        key = record[kind.key]
        if not key:
            raise BadMessageError(f"{kind.key}: the event's key may not be empty", stage="validate")
        self._check_time(record[kind.event_time])
        body = self.codec.encode(record)
        if len(body) + 5 > MAX_MESSAGE_BYTES:
            raise BadMessageError(f"the event has {len(body):,} bytes, more than {MAX_MESSAGE_BYTES:,}")
        return ReadyEvent(event_id=record[kind.event_id], key=key, value=frame(self.schema_id, body))

    def event_id(self, event: Mapping[str, Any]) -> str:
        """Return an event's UUID in canonical form, or a new one."""
        name = self.event_type.event_id
        given = event.get(name)
        if given is None:
            return new_id()
        if not isinstance(given, str) or not _UUID.fullmatch(given):
            raise BadMessageError(f"{name}: a UUID is wanted, got {str(given)[:60]!r}", stage="validate")
        return parse_id(given)

    def _check_time(self, time: datetime) -> None:
        ahead = (time - _EPOCH) // _MICROSECOND - self.clock.now_us() - self.future_skew_us
        if ahead > 0:
            name, skew = self.event_type.event_time, timedelta(microseconds=self.future_skew_us)
            raise BadMessageError(
                f"{name}: {time.isoformat()} is more than {skew} ahead of the clock", stage="validate"
            )


def open_channels(
    project: Project, topics: Topics, registry: SchemaRegistry, clock: Clock
) -> dict[str, EventChannel]:
    """Return a channel for every event type of a project.

    Raises
    ------
    UnavailableError
        The registry does not answer.
    ConfigurationError
        A schema is not registered.
    """
    channels = {}
    for name, event_type in published_types(project).items():
        topic = topics.events(name)
        channels[name] = EventChannel(
            event_type=event_type,
            topic=topic,
            schema_id=registry.schema_id(topics.subject(topic), event_type.schema),
            future_skew_us=project.future_skew_us,
            clock=clock,
            codec=RecordCodec(event_type.schema),
        )
    return channels
