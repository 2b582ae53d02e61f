"""Straight to Kafka: for applications that produce much, from inside the platform's network."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from driftline.client.exchange import DEFAULT_EVENT_ID, Event
from driftline.client.results import EventResult, PublishResult
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.contracts.wire import frame
from driftline.runtime.acknowledged_producer import AcknowledgedProducer, Acknowledgement
from driftline.runtime.errors import BadMessageError, ConfigurationError, UnavailableError
from driftline.runtime.ids import new_id


class EventPublisher:
    """Publishes events of one type to its topic, in the wire format, acknowledged. Thread-safe.

    The schema is the registry's latest; ``key`` names the field that keys the topic. Events are as JSON has them
    (times in ISO 8601 or microseconds). Nothing is retried beyond ``delivery_seconds``: publish again with the
    same ids.
    """

    def __init__(
        self,
        project: str,
        event_type: str,
        *,
        key: str,
        bootstrap: str,
        registry: str,
        environment: str = "",
        event_id: str = DEFAULT_EVENT_ID,
        delivery_seconds: float = 30.0,
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        topics = Topics(project, environment)
        self._topic = topics.events(event_type)
        self._key, self._event_id = key, event_id
        subject = topics.subject(self._topic)
        with SchemaRegistry(registry) as schemas:
            schema = schemas.latest(subject)
            if schema is None:
                msg = f"{subject} is not in the registry; run `driftline schemas register`"
                raise ConfigurationError(msg)
            self._schema_id = schemas.schema_id(subject, schema)
        if key not in {field["name"] for field in schema["fields"]}:
            raise ConfigurationError(f"{event_type} has no field {key!r} to key its topic")
        self._codec = RecordCodec(schema)
        self._delivery_seconds = delivery_seconds
        self._producer = AcknowledgedProducer(
            {"bootstrap.servers": bootstrap, **(kafka or {})}, delivery_seconds=delivery_seconds
        )

    def publish(self, events: Event | Sequence[Event]) -> PublishResult:
        """Publish one event or many and wait for the acknowledgements; results are in the events' order.

        Raises
        ------
        BackpressureError
            Too much is on its way; nothing of this call was sent.
        """
        many = [events] if isinstance(events, Mapping) else events
        self._producer.check_room(len(many))
        sent = [self._submit(event) for event in many]
        return PublishResult(results=[self._settled(item) for item in sent])

    def _submit(self, event: Event) -> EventResult | tuple[str, Future[Acknowledgement]]:
        identified = {**event, self._event_id: event.get(self._event_id) or new_id()}
        event_id = str(identified[self._event_id])
        try:
            key, value = self._encoded(identified)
            return event_id, self._producer.submit(self._topic, key, value)
        except BadMessageError as error:
            return EventResult(event_id=event_id, status="rejected", error=error.reason)

    def _encoded(self, event: Event) -> tuple[str, bytes]:
        record = self._codec.from_json(event)
        key = record[self._key]
        if not isinstance(key, str) or not key:
            raise BadMessageError(f"{self._key}: the event's key must be a text", stage="validate")
        return key, frame(self._schema_id, self._codec.encode(record))

    def _settled(self, item: EventResult | tuple[str, Future[Acknowledgement]]) -> EventResult:
        if isinstance(item, EventResult):
            return item
        event_id, sent = item
        try:
            written = sent.result(self._delivery_seconds + 5)
        except BadMessageError as error:
            return EventResult(event_id=event_id, status="rejected", error=error.reason)
        except (UnavailableError, TimeoutError) as error:
            return EventResult(event_id=event_id, status="unknown", error=str(error) or "no acknowledgement")
        return EventResult(
            event_id=event_id, status="accepted", partition=written.partition, offset=written.offset
        )

    def close(self) -> None:
        """Wait for what is on its way and close."""
        self._producer.close(self._delivery_seconds)

    def __enter__(self) -> Self:
        """Return the publisher, to be closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()
