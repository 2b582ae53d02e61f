"""Decode whatever lies on a topic, by the schema id in its bytes, for people to read."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from confluent_kafka import Message

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.wire import split
from driftline.runtime.errors import BadMessageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A value: its record, or why there is none."""

    record: dict[str, Any] | None
    schema_id: int | None
    mistake: str


class ValueDecoder:
    """Decodes values of any registered schema."""

    def __init__(self, registry: SchemaRegistry) -> None:
        self._registry = registry
        self._codecs: dict[int, RecordCodec] = {}

    def decode(self, value: bytes | None) -> Decoded:
        """Return the record of a framed value, or the reason why it cannot be decoded."""
        schema_id = None
        try:
            schema_id, body = split(value)
            if schema_id not in self._codecs:
                self._codecs[schema_id] = RecordCodec(self._registry.schema(schema_id))
            record = self._codecs[schema_id].decode(body)
        except BadMessageError as error:
            return Decoded(record=None, schema_id=schema_id, mistake=error.reason)
        return Decoded(record=record, schema_id=schema_id, mistake="")


def headers_of(message: Message) -> list[tuple[str, bytes | None]]:
    """Return a message's headers as pairs."""
    return cast(list[tuple[str, bytes | None]], message.headers() or [])


def text_of(value: bytes | None) -> str | None:
    """Return bytes as text; what is no UTF-8 as escapes."""
    return None if value is None else value.decode(errors="backslashreplace")


def time_of(message: Message) -> datetime:
    """Return a message's timestamp."""
    return datetime.fromtimestamp(message.timestamp()[1] / 1e3, UTC)
