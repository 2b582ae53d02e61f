"""Tell the story of a request from the topics: the prediction, its features, the events that made them.

1. The record in the log. A UUIDv7 says when the request was made, so reading starts there; for others, and where
   the request was asked again later, the log is read from its beginning.
2. Each view that the record names, with the values as they were served.
3. The view's events that were there by then, back as far as its longest window reaches, within a bound.
4. The values once more, computed from these events: equal to the served ones, or the trace says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftline.contracts import prediction_fields as names
from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.project_schemas import prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.contracts.wire import split
from driftline.features import FeatureView
from driftline.features.entity_keys import join_key
from driftline.features.event_columns import event_keys
from driftline.features.joining import joined_values
from driftline.features.matching import matches, spoken
from driftline.features.point_in_time import as_of_join
from driftline.features.read import ViewValues
from driftline.project import EventType, Project
from driftline.runtime.errors import BadMessageError, RefusedError
from driftline.runtime.ids import parse_id
from driftline.serving.event_search import MAX_RECORDS, OFFSET, PARTITION, FoundEvents, find_events
from driftline.serving.log_reading import CLOCK_SLACK_MS, LogReader, where_to_look

#: What describes the newest event (last, time since last) has no window; its events are searched so far back.
_LONGEST_MS = 30 * 86_400_000
#: The rows of a table stay, however old.
_ALL_TIME_US = 50 * 365 * 86_400_000_000
_KNOWN = "__known"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewTrace:
    """A view as it was served for a request, and the events inside its longest window.

    ``events`` counts them, ``newest`` tells some in full. ``complete`` is False where the search hit its bound.
    ``recomputed_equal`` says whether the same values come out of the events again; None where the events are not
    all there to tell, or the view has another version now.
    """

    view: str
    version: int
    entity: str
    key: str | None
    age_ms: int | None
    values: dict[str, float | None]
    events: int = 0
    newest: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = True
    recomputed_equal: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A request and what became of it.

    ``prediction`` is the log's record as JSON can hold it; ``records`` counts those of this request (one that was
    asked again has more).
    """

    request_id: str
    prediction: dict[str, Any]
    partition: int
    offset: int
    records: int
    views: list[ViewTrace]

    def as_json(self) -> dict[str, Any]:
        """Return the trace as plain values."""
        views = [{one.name: getattr(view, one.name) for one in fields(ViewTrace)} for view in self.views]
        return {
            "request_id": self.request_id,
            "logged_at": {"partition": self.partition, "offset": self.offset, "records": self.records},
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
    max_records: int = MAX_RECORDS,
    tell: Tell = lambda _text: None,
) -> Trace:
    """Find a request in the log and the events that made its features.

    Parameters
    ----------
    newest
        How many of each view's events are told in full; all are counted.
    max_records
        How many records of each event topic are looked at, at most (rounded up to whole blocks).
    tell
        Told what is going on, for a progress line.

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
    with LogReader(kafka) as reader:
        found = _find(reader, project, topics.predictions, registry, wanted, tell)
        record = found[-1].record
        events = _Events(reader, project, topics, registry, record, max_records=max_records, tell=tell)
        views = [_trace_view(project, ref, record, events, newest) for ref in record[names.FEATURE_VIEWS]]
    return Trace(
        request_id=wanted,
        prediction=RecordCodec.to_json(record),
        partition=found[-1].partition,
        offset=found[-1].offset,
        records=len(found),
        views=views,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Logged:
    record: dict[str, Any]
    partition: int
    offset: int


def _find(
    reader: LogReader, project: Project, topic: str, registry: SchemaRegistry, wanted: str, tell: Tell
) -> list[_Logged]:
    """Return the records of a request as far as they had to be read; the last is the one that counts."""
    codec, key = RecordCodec(prediction_schema(project)), wanted.encode()
    found: list[_Logged] = []
    for stretches in where_to_look(reader, topic, wanted):
        total, seen = sum(one.length for one in stretches), 0
        for messages in reader.read(stretches):
            seen += len(messages)
            tell(f"Looking for the request in {topic}: {seen:,} of {total:,} records")
            for message in messages:
                if (message.key() or b"").lower() != key:
                    continue
                try:
                    schema_id, body = split(message.value())
                    record = codec.decode(body, registry.schema(schema_id))
                except BadMessageError:
                    continue
                place = {"partition": message.partition() or 0, "offset": message.offset() or 0}
                found.append(_Logged(record=record, **place))
            if any(one.record[names.STATUS] == "ANSWERED" for one in found):
                return sorted(found, key=lambda one: one.record[names.STATUS] == "ANSWERED")
        if found:
            return found
    raise RefusedError(f"no request {wanted} is in {topic}", status=404, title="No such request")


class _Events:
    """The events behind a prediction's views, searched once per event type."""

    def __init__(
        self,
        reader: LogReader,
        project: Project,
        topics: Topics,
        registry: SchemaRegistry,
        record: Mapping[str, Any],
        *,
        max_records: int,
        tell: Tell,
    ) -> None:
        self._reader, self._project, self._topics, self._registry = reader, project, topics, registry
        self._record = record
        self._max_records = max_records
        self._tell = tell
        self._found: dict[str, FoundEvents] = {}
        self.as_of_us = _micros(record[names.EVENT_TIME])
        named = [ref.rpartition("@")[0] for ref in record[names.FEATURE_VIEWS]]
        self._views = [project.views[name] for name in named if name in project.views]

    def of(self, view: FeatureView) -> FoundEvents:
        """Return the events of all entities of the request of a stored view's event type."""
        event_type = self._project.event_type(view.source.event_type)
        if event_type.name not in self._found:
            topic = self._topics.events(event_type.name)
            self._tell(f"Reading the events in {topic}")
            stored = [part for one in self._views for part in one.stored]
            siblings = [one for one in stored if one.source.event_type == event_type.name]
            wanted: dict[str, list[str]] = {}
            for one in siblings:
                # Of a composite entity the events of its first part: a few too many, until they are told apart.
                wanted.setdefault(one.source.entity_fields[0], []).append(self._record[one.entity.keys[0]])
            reach_ms = max(reach_us(one) for one in siblings) // 1_000
            self._found[event_type.name] = find_events(
                self._reader,
                BatchDecoder(dict(event_type.schema), self._registry.schema),
                event_type,
                topic,
                wanted,
                # A record is not older than its event, but for the skew that the store allows.
                since_ms=max(
                    0, (self.as_of_us - self._project.future_skew_us) // 1_000 - reach_ms - CLOCK_SLACK_MS
                ),
                before_ms=_micros(self._record[names.PREDICTED_AT]) // 1_000,
                max_records=self._max_records,
            )
        return self._found[event_type.name]


def reach_us(view: FeatureView) -> int:
    """Return how far back from an instant a stored view's events lie."""
    if view.source.table:
        return _ALL_TIME_US
    reaches = [one.reach_us for one in view.aggregated]
    return max(_LONGEST_MS * 1_000 if reach is None else reach for reach in reaches)


def _trace_view(
    project: Project, ref: str, record: Mapping[str, Any], events: _Events, newest: int
) -> ViewTrace:
    name, _, version = ref.rpartition("@")
    view = project.views.get(name)
    if view is None or view.ref != ref or any(record.get(name) is None for name in view.entity.keys):
        return _as_logged(name, int(version), record)
    values = {one.name: record.get(column) for one, column in zip(view.features, view.columns, strict=True)}
    parts = [record[name] for name in view.entity.keys]
    key = join_key(parts) if view.entity.composite else parts[0]
    sources = [_traced(project, part, key, events, newest) for part in view.stored]
    own = {part.ref: one.own for part, one in zip(view.stored, sources, strict=True)}
    enough = all(one.enough for one in sources)
    shown = sorted((pair for one in sources for pair in one.newest), key=lambda pair: -pair[0])
    return ViewTrace(
        view=name,
        version=view.version,
        entity=view.entity.name,
        key=key,
        age_ms=record.get(view.age_column),
        values=values,
        events=sum(one.inside for one in sources),
        newest=[told for _, told in shown[:newest]],
        complete=all(one.finished for one in sources),
        recomputed_equal=_recompute(view, own, key, events.as_of_us, values)
        if enough and record.get(names.DEGRADED) is None
        else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _TracedSource:
    """An entity's events in one of a view's sources; ``newest`` are those shown, each with its event time."""

    own: pa.Table
    inside: int
    newest: list[tuple[int, dict[str, Any]]]
    finished: bool
    enough: bool


def _traced(project: Project, part: FeatureView, key: str, events: _Events, newest: int) -> _TracedSource:
    found = events.of(part)
    event_type = project.event_type(part.source.event_type)
    own = found.table.filter(pc.equal(event_keys(part.source, found.table), pa.scalar(key)))
    if part.where is not None:
        own = own.filter(pa.array(matches(part.where, spoken(part, own)[0])))
    times = own.column(event_type.event_time).cast(pa.int64()).to_numpy()
    inside = np.flatnonzero((times > events.as_of_us - reach_us(part)) & (times <= events.as_of_us))
    shown = inside[np.argsort(times[inside], kind="stable")][::-1][:newest]
    told = [_event_json(event_type, one) for one in own.take(pa.array(shown)).to_pylist()]
    return _TracedSource(
        own=own,
        inside=len(inside),
        newest=list(zip(times[shown].tolist(), told, strict=True)),
        finished=found.finished,
        enough=found.whole or (found.finished and all(one.reach_us is not None for one in part.aggregated)),
    )


def _as_logged(name: str, version: int, record: Mapping[str, Any]) -> ViewTrace:
    """Return what the record alone says of a view that is declared otherwise now."""
    prefix, age = f"{name}__", f"{name}__age_ms"
    values = {
        column.removeprefix(prefix): value
        for column, value in record.items()
        if column.startswith(prefix) and column != age
    }
    return ViewTrace(
        view=name, version=version, entity="", key=None, age_ms=record.get(age), values=values, complete=False
    )


def _recompute(
    view: FeatureView,
    own: Mapping[str, pa.Table],
    key: str,
    as_of_us: int,
    served: Mapping[str, float | None],
) -> bool:
    """Tell whether the events, by stored view, give the served values again."""

    def stored(part: FeatureView) -> ViewValues:
        # Each was in the store when the prediction was made, whatever its event time says.
        there = own[part.ref]
        known = there.append_column(_KNOWN, pa.array(np.full(len(there), as_of_us), pa.timestamp("us")))
        return as_of_join(part, known, [key], np.array([as_of_us], np.int64), known_at=_KNOWN)

    again = joined_values(view, stored).values[0]
    wanted = np.array([np.nan if value is None else value for value in served.values()])
    return bool(np.array_equal(again, wanted, equal_nan=True))


def _event_json(event_type: EventType, event: Mapping[str, Any]) -> dict[str, Any]:
    place = {"partition": event[PARTITION], "offset": event[OFFSET]}
    told = {one["name"]: event[one["name"]] for one in event_type.schema["fields"]}
    utc = {
        name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
        for name, value in told.items()
    }
    return {**RecordCodec.to_json(utc), **place}


def _micros(time: datetime) -> int:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    delta = time - epoch
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
