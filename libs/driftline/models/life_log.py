"""Read ``model-events`` to its end, and go on from there: every fact and command in the order of the log."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from confluent_kafka import Message

from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.wire import frame, split
from driftline.models.model_event import ModelEvent
from driftline.playback.topic_reading import TopicReader
from driftline.runtime.errors import BadMessageError
from driftline.runtime.logging import get_logger

_log = get_logger(__name__)


class LifeCodec:
    """Model events to framed bytes and back."""

    def __init__(self, registry: SchemaRegistry, schema_id: int | None = None) -> None:
        self._codec = RecordCodec(platform_schema("model_event"))
        self._registry = registry
        self._schema_id = schema_id

    def encode(self, event: ModelEvent) -> bytes:
        """Return an event's value; needs the id of its schema."""
        if self._schema_id is None:
            raise ValueError("a codec without a schema id only decodes")
        return frame(self._schema_id, self._codec.encode(event.record()))

    def decode(self, value: bytes | None) -> ModelEvent:
        """Return the event of a value; BadMessageError where it is none."""
        schema_id, body = split(value)
        record = self._codec.decode(body, self._registry.schema(schema_id))
        try:
            return ModelEvent.of(record)
        except ValueError as error:  # a kind that a newer driftline writes
            raise BadMessageError(str(error)) from error


class LifeLog:
    """A reader of the whole topic; belongs to no group. What cannot be decoded is passed over with a warning."""

    def __init__(self, kafka: Mapping[str, Any], topic: str, registry: SchemaRegistry) -> None:
        self._codec = LifeCodec(registry)
        self._reader = TopicReader(kafka, [topic])
        #: Per partition the offset behind the last record that was read.
        self.positions: dict[int, int] = {}

    def __enter__(self) -> Self:
        """Return the reader, to be closed at the end of the block."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the reader."""
        self.close()

    def read_to_end(self) -> list[ModelEvent]:
        """Return everything up to the end of every partition."""
        return list(self._events(self._reader.read_to_end()))

    def poll(self, timeout: float = 0.0) -> list[ModelEvent]:
        """Return what has come since, after waiting for a first one for at most ``timeout`` seconds."""
        return list(self._events(iter(self._reader.poll(timeout))))

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def _events(self, messages: Iterator[Message]) -> Iterator[ModelEvent]:
        for message in messages:
            self.positions[message.partition() or 0] = (message.offset() or 0) + 1
            try:
                yield self._codec.decode(message.value())
            except BadMessageError as error:
                _log.warning("no model event", offset=message.offset(), error=error.reason)
