"""Tell the story of a request from the topics: the prediction, its features, the events that made them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from driftline.contracts import prediction_fields as fields
from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.contracts.wire import split
from driftline.features import FeatureView
from driftline.project import Project
from driftline.runtime.errors import BadMessageError, RefusedError, UnavailableError
from driftline.runtime.ids import id_time_ms, parse_id

_TIMEOUT = 10.0
_BATCH = 10_000
#: A request is logged within seconds of its making; clocks differ by less than this.
_CLOCK_SLACK_MS = 60_000
#: Windows without end (last, time since last) are searched so far back.
_LONGEST = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewTrace:
    """A view as it was served for a request, and the events inside its longest window."""

    view: str
    version: int
    entity: str
    key: str | None
    age_ms: int | None
    values: dict[str, float | None]
    events: int = 0
    newest: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A request and what became of it. ``prediction`` is the log's record as JSON can hold it."""

    request_id: str
    prediction: dict[str, Any]
    partition: int
    offset: int
    views: list[ViewTrace]

    def as_json(self) -> dict[str, Any]:
        """Return the trace as plain values."""
        views = [{name: getattr(view, name) for name in ViewTrace.__slots__} for view in self.views]
        place = {"partition": self.partition, "offset": self.offset}
        return {
            "request_id": self.request_id,
            "logged_at": place,
            "prediction": self.prediction,
            "views": views,
        }


def trace_request(
    project: Project,
    topics: Topics,
    kafka: Mapping[str, Any],
    registry: SchemaRegistry,
    request_id: str,
    *,
    newest: int = 5,
) -> Trace:
    """Find a request in the log and the events that made its features.

    Parameters
    ----------
    newest
        How many of each view's events are told in full; all are counted.

    Raises
    ------
    RefusedError
        Where the text is no UUID (422), or the log has no such request (404).
    UnavailableError
        Where the broker does not answer.
    """
    try:
        wanted = parse_id(request_id)
    except ValueError as error:
        raise RefusedError(f"{request_id!r} is no UUID") from error
    reader = _Reader(kafka, registry)
    try:
        record, partition, offset = _find(reader, project, topics, wanted)
        model = project.models.get(record[fields.MODEL])
        views = [
            _trace_view(reader, project, topics, view, record, newest)
            for view in (model.views if model else ())
        ]
    except KafkaException as error:
        raise UnavailableError(f"the broker does not answer: {error}") from error
    finally:
        reader.close()
    prediction = RecordCodec.to_json(record)
    return Trace(request_id=wanted, prediction=prediction, partition=partition, offset=offset, views=views)


class _Reader:
    """Reads a topic to its end, from a time on."""

    def __init__(self, kafka: Mapping[str, Any], registry: SchemaRegistry) -> None:
        self._registry = registry
        self._consumer = Consumer(
            {
                **kafka,
                "group.id": "driftline-trace",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )

    def close(self) -> None:
        self._consumer.close()

    def messages(self, topic: str, since_ms: int | None) -> Any:
        """Yield the messages of all partitions whose record timestamp is not before ``since_ms``."""
        partitions = list(self._consumer.list_topics(topic, timeout=_TIMEOUT).topics[topic].partitions)
        starts = [TopicPartition(topic, partition, since_ms or 0) for partition in partitions]
        if since_ms is not None:
            starts = self._consumer.offsets_for_times(starts, timeout=_TIMEOUT)
        self._consumer.assign(starts)
        ended: set[int | None] = set()
        while len(ended) < len(partitions):
            for message in self._consumer.consume(_BATCH, 1.0):
                if message.error() is not None:
                    ended.add(message.partition())
                else:
                    yield message

    def decode(self, codec: RecordCodec, value: bytes | None) -> dict[str, Any] | None:
        """Return a message's record; None for a bad one."""
        try:
            schema_id, body = split(value)
            return codec.decode(body, self._registry.schema(schema_id))
        except BadMessageError:
            return None


def _find(reader: _Reader, project: Project, topics: Topics, wanted: str) -> tuple[dict[str, Any], int, int]:
    made_ms = id_time_ms(wanted)
    codec = RecordCodec(prediction_schema(project))
    key = wanted.encode()
    for since in ([made_ms - _CLOCK_SLACK_MS] if made_ms is not None else []) + [None]:
        for message in reader.messages(topics.predictions, since):
            if message.key() == key:
                record = reader.decode(codec, message.value())
                if record is not None:
                    return record, message.partition(), message.offset()
    raise RefusedError(f"no request {wanted} is in {topics.predictions}", status=404)


def _trace_view(
    reader: _Reader,
    project: Project,
    topics: Topics,
    view: FeatureView,
    record: Mapping[str, Any],
    newest: int,
) -> ViewTrace:
    key = record.get(view.entity.name)
    event_type = project.event_types[view.source.event_type]
    as_of: datetime = record[fields.EVENT_TIME]
    windows = [timedelta(microseconds=one.window_us) for one in view.features if one.window_us is not None]
    since = as_of - (_LONGEST if any(one.window_us is None for one in view.features) else max(windows))
    codec = RecordCodec(dict(event_type.schema))
    before_ms = int(record[fields.PREDICTED_AT].timestamp() * 1_000)
    seen: dict[str, dict[str, Any]] = {}
    if key is not None:
        for message in reader.messages(topics.events(event_type.name), None):
            if message.timestamp()[1] > before_ms:
                continue
            event = reader.decode(codec, message.value())
            if event is None or event[view.source.entity_field] != key:
                continue
            if since < event[event_type.event_time] <= as_of:
                seen.setdefault(event[event_type.event_id], event)
    ordered = sorted(seen.values(), key=lambda event: event[event_type.event_time], reverse=True)
    return ViewTrace(
        view=view.name,
        version=view.version,
        entity=view.entity.name,
        key=key,
        age_ms=record[view.age_column],
        values={one.name: record[column] for one, column in zip(view.features, view.columns, strict=True)},
        events=len(seen),
        newest=[RecordCodec.to_json(event) for event in ordered[:newest]],
    )
