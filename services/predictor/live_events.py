"""A model's logged predictions as server-sent events: what an event holds, who wants it, how it is written.

The format is that of the HTML standard (https://html.spec.whatwg.org/multipage/server-sent-events.html). An event's id is
the place in the log behind it, in every partition, so that a listener that comes back goes on from there.
"""

import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from confluent_kafka import Message

from driftline.contracts import prediction_fields as fields
from driftline.contracts.batch_codec import BatchDecoder
from driftline.features.event_columns import micros
from driftline.project import ModelDeclaration, Project
from driftline.runtime.errors import RefusedError
from driftline.serving.request_values import MAX_KEY
from services.predictor.answers import Answers, instant_text

#: By partition, the offset after the last record.
Positions = Mapping[int, int]

RETRY_MS = 2_000
_TOLD = (
    fields.REQUEST_ID,
    fields.MODEL,
    fields.MODEL_VERSION,
    fields.CHANNEL,
    fields.STATUS,
    fields.SCORE,
    fields.DECISION,
    fields.ERROR,
    fields.EVENT_TIME,
    fields.PREDICTED_AT,
    fields.DEGRADED,
)
_TIMES = (fields.EVENT_TIME, fields.PREDICTED_AT)
_POSITIONS = re.compile(r"[0-9]{1,9}:[0-9]{1,18}(,[0-9]{1,9}:[0-9]{1,18}){0,9999}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEvent:
    """One logged prediction, written out once for all who listen."""

    model: str
    request_id: str
    status: str
    entities: Mapping[str, str | None]
    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which of a model's predictions a listener wants.

    ``share`` is of the requests, chosen by a hash of their ids: all listeners with one share get the same.
    """

    model: str
    statuses: frozenset[str] = frozenset()
    entities: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0

    def takes(self, event: LiveEvent) -> bool:
        """Tell whether the listener wants an event."""
        return (
            event.model == self.model
            and (not self.statuses or event.status in self.statuses)
            and all(event.entities.get(name) == key for name, key in self.entities.items())
            and (self.share >= 1 or zlib.crc32(event.request_id.lower().encode()) < self.share * 2**32)
        )


def read_wanted(
    model: ModelDeclaration, statuses: Sequence[str], entities: Sequence[str], share: float
) -> Wanted:
    """Return what query parameters ask for.

    Raises
    ------
    RefusedError
        There is no such status, or an entity is not ``name:key`` with a name that the model's requests have.
    """
    unknown = sorted(set(statuses) - set(fields.STATUSES))
    if unknown:
        raise RefusedError(f"there is no status {unknown[0][:60]!r}; known are {', '.join(fields.STATUSES)}")
    keys: dict[str, str] = {}
    for text in entities:
        name, colon, key = text.partition(":")
        if not colon or name not in model.entity_keys or len(key) > MAX_KEY:
            known = ", ".join(model.entity_keys)
            raise RefusedError(f"entity={text[:60]!r} is not name:key; {model.name} knows the names {known}")
        keys[name] = key
    return Wanted(model=model.name, statuses=frozenset(statuses), entities=keys, share=share)


def positions_text(positions: Positions) -> str:
    """Return positions as an event's id.

    >>> positions_text({1: 7, 0: 12})
    '0:12,1:7'
    """
    return ",".join(f"{partition}:{positions[partition]}" for partition in sorted(positions))


def read_positions(text: str) -> dict[int, int]:
    """Return the positions of an event's id; RefusedError for what is none.

    >>> read_positions("0:12,1:7")
    {0: 12, 1: 7}
    """
    if not _POSITIONS.fullmatch(text):
        raise RefusedError(
            "Last-Event-ID is no id of an event of this stream; leave it out to listen from now on"
        )
    return {
        int(partition): int(offset)
        for partition, _, offset in (one.partition(":") for one in text.split(","))
    }


def opening(positions: Positions) -> bytes:
    """Return what a stream begins with: where it begins, and how soon to come back."""
    return f"retry: {RETRY_MS}\nid: {positions_text(positions)}\n\n".encode()


def heartbeat(positions: Positions) -> bytes:
    """Return a sign of life, with the place in the log: who comes back need not go through what it did not want."""
    return f": listening\nid: {positions_text(positions)}\n\n".encode()


def missed(count: int) -> bytes:
    """Return the event that says how many events were left out here."""
    return b'event: missed\ndata: {"missed":%d}\n\n' % count


class EventMaker:
    """Makes events of messages of the prediction log. For one thread."""

    def __init__(self, project: Project, decoder: BatchDecoder) -> None:
        self._decoder = decoder
        self._models = {name: _Columns(model) for name, model in project.models.items()}

    def events(
        self, messages: Sequence[Message], positions: dict[int, int], models: Collection[str]
    ) -> list[LiveEvent]:
        """Return the events of some models, in the messages' order, and move ``positions`` behind the messages."""
        decoded = self._decoder.decode([message.value() for message in messages])
        told = self._told(decoded.table, decoded.rows.tolist(), models)
        found = []
        for row, message in enumerate(messages):
            positions[message.partition() or 0] = (message.offset() or 0) + 1
            if row in told:
                found.append(self._event(told[row], positions))
        return found

    def _told(
        self, table: pa.RecordBatch, rows: Sequence[int], models: Collection[str]
    ) -> dict[int, dict[str, Any]]:
        names = np.asarray(table.column(fields.MODEL).to_pylist(), dtype=object)
        found: dict[int, dict[str, Any]] = {}
        for model in models:
            places = np.flatnonzero(names == model)
            if len(places):
                records = self._models[model].records(table.take(pa.array(places)))
                found.update(zip((rows[place] for place in places.tolist()), records, strict=True))
        return found

    def _event(self, record: dict[str, Any], positions: Positions) -> LiveEvent:
        columns = self._models[record[fields.MODEL]]
        body = orjson.dumps(columns.told(record))
        return LiveEvent(
            model=record[fields.MODEL],
            request_id=record[fields.REQUEST_ID],
            status=record[fields.STATUS],
            entities={name: record[name] for name in columns.entities},
            text=b"id: %s\nevent: prediction\ndata: %s\n\n" % (positions_text(positions).encode(), body),
        )


class _Columns:
    """What is told of a model's predictions: the answer, who it was about, how it came and when."""

    def __init__(self, model: ModelDeclaration) -> None:
        self.entities = model.entity_keys
        self._answers = Answers(model)
        features = (name for view in model.views for name in (*view.columns, view.age_column))
        self._names = (*_TOLD, *model.entity_keys, *features)

    def records(self, table: pa.RecordBatch) -> Iterator[dict[str, Any]]:
        """Yield rows as records, with times in microseconds."""
        columns = [
            micros(table.column(name)).tolist() if name in _TIMES else table.column(name).to_pylist()
            for name in self._names
        ]
        for values in zip(*columns, strict=True):
            yield dict(zip(self._names, values, strict=True))

    def told(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an event says of a record."""
        return {
            **self._answers.of(record),
            "channel": record[fields.CHANNEL],
            "error": record[fields.ERROR],
            "predicted_at": instant_text(record[fields.PREDICTED_AT]),
            "entities": {name: record[name] for name in self.entities},
        }
