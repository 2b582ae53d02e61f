"""What a training set is made from: a project's files, or its log, in the archive or in the topics.

From files it is the project's history. From the log it is what the platform lived through: the requests that were
answered, the labels that came, and the events, each known from the instant on at which it came into the log. A request
knows the events that were in the log when it was answered, and reads them as of its own instant (``replay.recomputing``).

What a set was made from is written down: the history's hashes, or the offsets of every topic. A set that is built again
under its name is read up to the same offsets, whatever has come since, and so is the same to the byte.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline import __version__
from driftline.archive.columns import INSTANT, OFFSET, PARTITION, PLACE, TIMESTAMP, fitted, storage_schema
from driftline.archive.tables import TOPICS, Archive, summarize
from driftline.archive.training_sets import content_sha256
from driftline.contracts import prediction_fields as names
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.project_schemas import label_schema, prediction_request_schema
from driftline.contracts.topics import LABELS, PREDICTIONS
from driftline.features import FeatureView
from driftline.features.differences import formula
from driftline.features.event_columns import micros, request_keys
from driftline.features.joining import joined_values
from driftline.models.training_set import Join, join_as_known, labelled_requests
from driftline.project import LabelRule, ModelDeclaration, Never, Project
from driftline.project.history import KNOWN_AT, LABEL, LABEL_KNOWN_AT, History, load_history
from driftline.replay.recomputing import counted_events, join_as_logged
from driftline.replay.records import ArchiveRecords, TopicRecords
from driftline.runtime.durations import DAY_US
from driftline.runtime.errors import ConfigurationError

#: Column of requests from the log: when each was answered.
ANSWERED_AT = "answered_at"
_NAIVE = pa.timestamp("us")
_ANSWERED = names.STATUSES[0]
_NEVER = {Never.EXCLUDE: np.nan, Never.NEGATIVE: 0.0, Never.POSITIVE: 1.0}
_CODE = ("*.py", "*.yaml", "*.avsc")
_LOG_FIELDS = [field for field in PLACE if field.name in {PARTITION, OFFSET, TIMESTAMP}]

Tell = Callable[[str], None]
Offsets = Mapping[int, tuple[int, int]]


class SourceKind(StrEnum):
    """Where a training set's events, requests and labels are read."""

    FILES = "files"
    ARCHIVE = "archive"
    TOPIC = "topic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Requests with ``since_us <= event time < until_us`` whose label was known at ``known_by_us`` (microseconds)."""

    since_us: int
    until_us: int
    known_by_us: int

    def __post_init__(self) -> None:
        if self.until_us <= self.since_us:
            raise ConfigurationError("the span is empty: --until must be later than --since")

    def as_json(self) -> dict[str, str]:
        """Return its instants in ISO 8601."""
        return {
            "since": _text(self.since_us),
            "until": _text(self.until_us),
            "known_by": _text(self.known_by_us),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """What of a stream is read: offsets from and up to, by partition, and the Delta table's version (None: a topic)."""

    offsets: Offsets
    version: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        told: dict[str, Any] = {"offsets": {str(number): list(pair) for number, pair in self.offsets.items()}}
        return told if self.version is None else {**told, "version": self.version}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Extent":
        """Return the extent that ``as_json`` told."""
        offsets = {int(number): (pair[0], pair[1]) for number, pair in told["offsets"].items()}
        return cls(offsets=offsets, version=told.get("version"))


class Log(Protocol):
    """The streams of a project, in the archive or in the topics."""

    @property
    def kind(self) -> SourceKind:
        """Which of the two."""
        ...

    def extent(self, stream: str) -> Extent:
        """Return what there is of a stream now; ConfigurationError where there is no such stream."""
        ...

    def rows(self, stream: str, extent: Extent, chosen: pc.Expression) -> Iterator[pa.Table]:
        """Yield the records within an extent; those for which the expression does not hold may be left out."""
        ...


class ArchiveLog:
    """The log as the archive holds it."""

    kind = SourceKind.ARCHIVE

    def __init__(self, archive: Archive, tell: Tell = lambda _: None) -> None:
        self._archive = archive
        self._records = ArchiveRecords(archive, tell)

    def extent(self, stream: str) -> Extent:
        """Return the table's version, and the next offset of each partition."""
        self._records.columns(stream)
        found = summarize(self._archive, TOPICS, stream)
        assert found is not None  # noqa: S101  columns() has refused a table that is not there
        return Extent(
            offsets={number: (0, stop) for number, stop in found.offsets.items()}, version=found.version
        )

    def rows(self, stream: str, extent: Extent, chosen: pc.Expression) -> Iterator[pa.Table]:
        """Yield the rows within the extent for which the expression holds."""
        held = self.extent(stream).offsets
        for number, (_, stop) in extent.offsets.items():
            if held.get(number, (0, 0))[1] < stop:
                raise ConfigurationError(
                    f"the archive's table of {stream} ends before offset {stop} of partition {number}, up to which the "
                    "training set was made: wait until the archiver has caught up, or build under another name"
                )
        inside = pc.scalar(False)
        for number, (_, stop) in extent.offsets.items():
            inside |= (pc.field(PARTITION) == number) & (pc.field(OFFSET) < stop)
        yield from self._records.scan(stream, inside & chosen)


class TopicLog:
    """The log as the topics hold it."""

    kind = SourceKind.TOPIC

    def __init__(self, records: TopicRecords) -> None:
        self._records = records

    def extent(self, stream: str) -> Extent:
        """Return the first and the next offset of each partition."""
        return Extent(offsets=self._records.extent(stream))

    def rows(self, stream: str, extent: Extent, chosen: pc.Expression) -> Iterator[pa.Table]:
        """Yield all records within the extent."""
        del chosen  # the caller looks again; a topic cannot be asked
        held = self._records.extent(stream)
        for number, (start, _) in extent.offsets.items():
            if held[number][0] > start:
                raise ConfigurationError(
                    f"the topic of {stream} begins at offset {held[number][0]} of partition {number} by now, the training "
                    f"set at {start}: build from the archive, or under another name"
                )
        yield from self._records.between(stream, extent.offsets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a training set of a model is made from.

    ``requests`` are those of the span whose label was known, in order; ``made_from`` says what they and the events of
    ``history`` were read from (JSON values).
    """

    history: History
    requests: pa.Table
    join: Join
    made_from: Mapping[str, Any]

    @property
    def answered_us(self) -> NDArray[np.int64]:
        """Up to which instant each request knew events, on the clock of the events' ``known_at``."""
        logged = ANSWERED_AT in self.requests.column_names
        return micros(self.requests[ANSWERED_AT if logged else names.EVENT_TIME])


def from_files(project: Project, span: Span) -> Material:
    """Read the project's history, as `driftline train` does: from the first day of the span to its last.

    Raises
    ------
    ConfigurationError
        The project has no history, or it lacks what the project declares.
    """
    last = _day(span.until_us - 1) + timedelta(days=1)
    history = load_history(project, _day(span.since_us), last)
    path = project.history_module
    assert path is not None  # noqa: S101  load_history has refused a project without one
    tables = {
        **{f"events.{name}": table for name, table in history.events.items()},
        "requests": history.requests,
    }
    return Material(
        history=history,
        requests=_within(labelled_requests(history.requests, span.known_by_us), span),
        join=join_as_known,
        made_from={
            "source": SourceKind.FILES.value,
            "span": span.as_json(),
            "module": {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
            "tables": {
                name: {"rows": len(table), "sha256": content_sha256(_plain(table))}
                for name, table in tables.items()
            },
        },
    )


def from_log(
    project: Project,
    model: ModelDeclaration,
    log: Log,
    span: Span,
    *,
    made_from: Mapping[str, Any] | None = None,
    tell: Tell = lambda _: None,
) -> Material:
    """Read answered requests, labels and events from the log.

    Parameters
    ----------
    made_from
        What an earlier set says that it was made from: the same offsets are read again. Up to now if None.

    Raises
    ------
    ConfigurationError
        The model declares no label, or a stream is not there (any more).
    UnavailableError
        Store, broker or registry do not answer.
    """
    if model.label is None:
        raise ConfigurationError(
            f"model {model.name!r} declares no `label:`, so the log has no outcomes to learn from"
        )
    reader = _Reader(project, log, made_from, tell)
    asked = _requests(project, model, reader, span)
    labels = reader.read(LABELS, storage_schema(arrow_schema(label_schema())), pc.scalar(True))
    only = len(project.labelled_models) == 1
    requests = _labelled(asked, _own_labels(labels, model.name, only=only), model.label, span.known_by_us)
    events = {}
    for event_type in dict.fromkeys(part.source.event_type for view in model.views for part in view.stored):
        events[event_type] = _events(project, model, event_type, reader, requests)
    return Material(
        history=History(events=events, requests=requests),
        requests=requests,
        join=_join_logged,
        made_from={
            "source": log.kind.value,
            "span": span.as_json(),
            "streams": {stream: extent.as_json() for stream, extent in sorted(reader.extents.items())},
        },
    )


def code_of(project: Project, model: ModelDeclaration) -> dict[str, Any]:
    """Return what computed a training set: driftline's version, hashes of the project's files and the views."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _CODE for path in project.folder.rglob(pattern)):
        inside = path.relative_to(project.folder)
        if not any(part.startswith(".") for part in inside.parts):
            content = path.read_bytes()
            digest.update(f"{inside.as_posix()}\0{len(content)}\0".encode() + content)
    return {
        "driftline": __version__,
        "project_sha256": digest.hexdigest(),
        "views": {view.ref: view_sha256(view) for view in model.views},
    }


def view_sha256(view: FeatureView) -> str:
    """Name what a view computes: where its events come from, its features in order, what is served of stale ones."""
    lines = [
        view.ref,
        ",".join(view.entity.keys),
        *(f"{one.event_type} {','.join(one.entity_fields)} {one.event_time}" for one in view.sources),
        *(f"joins {view_sha256(one)}" for one in view.views),
        f"where {view.where}",
        f"tile {view.tile} ttl {view.ttl_us} {view.on_stale}",
        *(f"{feature.name} = {formula(feature)}" for feature in view.features),
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class _Reader:
    """Reads streams of a log, up to now or up to where an earlier set was read; remembers how far."""

    def __init__(self, project: Project, log: Log, made_from: Mapping[str, Any] | None, tell: Tell) -> None:
        self.project, self._log, self._tell = project, log, tell
        self._pins = {} if made_from is None else made_from.get("streams", {})
        self.extents: dict[str, Extent] = {}

    def read(self, stream: str, columns: pa.Schema, chosen: pc.Expression) -> pa.Table:
        """Return the rows of a stream for which an expression holds, in these columns, in the log's order."""
        self._tell(f"reading {stream}")
        pin = self._pins.get(stream)
        extent = self.extents[stream] = Extent.from_json(pin) if pin else self._log.extent(stream)
        schema = pa.schema([*columns, *_LOG_FIELDS])
        tables = [fitted(table, schema).filter(chosen) for table in self._log.rows(stream, extent, chosen)]
        return pa.concat_tables([schema.empty_table(), *tables]).sort_by(
            [(PARTITION, "ascending"), (OFFSET, "ascending")]
        )


def _requests(project: Project, model: ModelDeclaration, reader: _Reader, span: Span) -> pa.Table:
    """Return the answered requests of the span, each once, by event time."""
    header = [pa.field(names.STATUS, pa.string()), pa.field(names.PREDICTED_AT, INSTANT)]
    columns = pa.schema([*storage_schema(arrow_schema(prediction_request_schema(project))), *header])
    chosen = (
        (pc.field(names.MODEL) == model.name)
        & (pc.field(names.STATUS) == _ANSWERED)
        & (pc.field(names.EVENT_TIME) >= pa.scalar(span.since_us, pa.int64()).cast(INSTANT))
        & (pc.field(names.EVENT_TIME) < pa.scalar(span.until_us, pa.int64()).cast(INSTANT))
    )
    rows = reader.read(PREDICTIONS, columns, chosen)
    _, first = np.unique(
        np.asarray(rows[names.REQUEST_ID].to_pylist(), dtype=object).astype(str), return_index=True
    )
    once = rows.take(pa.array(first))
    once = once.sort_by([(names.EVENT_TIME, "ascending"), (names.REQUEST_ID, "ascending")])
    found = {names.REQUEST_ID: once[names.REQUEST_ID]}
    found[names.EVENT_TIME] = once[names.EVENT_TIME].cast(_NAIVE)
    found[ANSWERED_AT] = once[names.PREDICTED_AT].cast(_NAIVE)
    for name in (*project.request_entities, *(one.name for one in project.request_inputs)):
        found[name] = once[name]
    return pa.table(found)


def _own_labels(labels: pa.Table, model: str, *, only: bool) -> pd.DataFrame:
    """Return the labels of a model that make sense, each UUID once, in the log's order."""
    frame = pd.DataFrame(
        {name: labels[name].to_pylist() for name in ("label_id", "model", "request_id", "key")}, dtype=object
    )
    frame["label"] = pc.cast(labels["label"], pa.float64()).to_numpy()
    frame["known_us"] = micros(labels["known_at"])
    own = (frame["model"] == model) | (frame["model"].isna() & only)
    sensible = frame["label"].isna() | frame["label"].isin([0.0, 1.0])
    return frame[own & sensible].drop_duplicates("label_id", ignore_index=True)


def _labelled(requests: pa.Table, labels: pd.DataFrame, rule: LabelRule, known_by_us: int) -> pa.Table:
    """Return the requests whose label was known, with it: of several the one known last, as ``outcome_joiner`` has it."""
    asked = pd.DataFrame({"row": np.arange(len(requests)), "as_of_us": micros(requests[names.EVENT_TIME])})
    asked["request_id"] = pd.Series(requests[names.REQUEST_ID].to_pylist(), dtype=object)
    by_request = labels[labels["request_id"].notna()].drop(columns="key")
    found = [asked.merge(by_request, on="request_id")]
    if rule.key is not None:
        asked["key"] = pd.Series(requests[rule.key].to_pylist(), dtype=object)
        by_key = labels[labels["request_id"].isna() & labels["key"].notna()].drop(columns="request_id")
        found.append(asked[asked["key"].notna()].merge(by_key, on="key"))
    joined = pd.concat([one[["row", "as_of_us", "label", "known_us"]] for one in found], ignore_index=True)
    in_time = (joined["known_us"] <= joined["as_of_us"] + rule.horizon_us) & (
        joined["known_us"] <= known_by_us
    )
    last = joined[in_time].sort_values("known_us", ascending=False, kind="stable").drop_duplicates("row")
    last = (
        last.assign(label=last["label"].fillna(_NEVER[rule.never])).dropna(subset="label").sort_values("row")
    )
    chosen = requests.take(pa.array(last["row"].to_numpy(np.int64)))
    known = pa.array(last["known_us"].to_numpy(np.int64)).cast(_NAIVE)
    return chosen.append_column(LABEL, pa.array(last["label"].to_numpy() == 1.0)).append_column(
        LABEL_KNOWN_AT, known
    )


def _events(
    project: Project, model: ModelDeclaration, name: str, reader: _Reader, requests: pa.Table
) -> pa.Table:
    """Return the events of a type that the requests may know, with ``known_at``: when each came into the log."""
    event_type = project.event_type(name)
    chosen = pc.scalar(len(requests) > 0)
    if len(requests):
        last = pc.max(requests[ANSWERED_AT]).cast(pa.int64()).cast(INSTANT)
        chosen = pc.field(TIMESTAMP) <= last
        stored = [part for view in model.views for part in view.stored]
        back_us = _reach_us([part for part in stored if part.source.event_type == name])
        if back_us is not None:
            since = pc.min(requests[names.EVENT_TIME]).cast(pa.int64()).as_py() - back_us
            chosen &= pc.field(event_type.event_time) >= pa.scalar(since, pa.int64()).cast(INSTANT)
    columns = storage_schema(arrow_schema(dict(event_type.schema)))
    events = counted_events(event_type, reader.read(name, columns, chosen), project.future_skew_us)
    return events.append_column(KNOWN_AT, events[TIMESTAMP])


def _reach_us(views: list[FeatureView]) -> int | None:
    """Return how far back the views look; None where one looks at the newest event, however old."""
    features = [feature for view in views for feature in view.aggregated]
    reaches = [one.reach_us for one in features]
    if None in reaches or any(view.ttl_us is not None for view in views):
        return None
    return max(reach for reach in reaches if reach is not None) + DAY_US


def _join_logged(
    view: FeatureView, events: Mapping[str, pa.Table], requests: pa.Table
) -> NDArray[np.float64]:
    keys = request_keys(view.entity, requests).to_pylist()
    as_of_us, answered_us = micros(requests[names.EVENT_TIME]), micros(requests[ANSWERED_AT])
    return joined_values(
        view,
        lambda part: join_as_logged(part, events[part.source.event_type], keys, as_of_us, answered_us),
    ).values


def _within(requests: pa.Table, span: Span) -> pa.Table:
    as_of_us = micros(requests[names.EVENT_TIME])
    first, last = (int(np.searchsorted(as_of_us, at, side="left")) for at in (span.since_us, span.until_us))
    return requests.slice(first, last - first)


def _plain(table: pa.Table) -> pa.Table:
    """Return a table in types that ``content_sha256`` takes."""
    return fitted(table, storage_schema(table.schema))


def _day(instant_us: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant_us)).date()


def _text(instant_us: int) -> str:
    found = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant_us)
    return found.isoformat().replace("+00:00", "Z")
