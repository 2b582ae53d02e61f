"""Play a plan against running services, in event time, as fast as they follow.

For every step:

1. send what became known: events and labels through ingest, damaged copies straight to Kafka; all acknowledged;
2. wait until the store has applied it, so that features are those of this very minute;
3. send the minute's requests, most on the topic, every tenth (unless said) over HTTP;
4. wait until the log shows a prediction for each: nothing newer can reach a request that is still open.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from driftline.contracts.project_schemas import prediction_request_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import LABELS, Topics
from driftline.contracts.wire import frame
from driftline.features.entity_keys import join_key
from driftline.features.online import OnlineStore
from driftline.playback.faults import Damage, damaged
from driftline.playback.plan import Plan, Step
from driftline.playback.requesting import HttpRequester, TopicRequester
from driftline.playback.sending import DamagedSender, EventSender, Record, Sent
from driftline.playback.topic_reading import Positions, TopicReader
from driftline.playback.watching import PredictionLog, StoreWatch, Watchdog
from driftline.project import Project
from driftline.runtime.clock import Clock, SystemClock

_EVERY_HTTP = 10
_EVERY_FRESHNESS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The running services and servers that a play needs."""

    kafka: Mapping[str, Any]
    registry: SchemaRegistry
    store: OnlineStore
    ingest_url: str
    predictor_url: str
    watchdog: Watchdog


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a play did and measured; ``began`` is where its records start in each topic."""

    sent: Sent
    requested: Sequence[str]
    over_http: Sequence[str]
    http_resent: int
    http_ms: Sequence[float]
    freshness_ms: Sequence[float]
    began: Positions
    labels: int
    seconds: float


class Player:
    """Plays one plan, once."""

    def __init__(
        self,
        project: Project,
        model: str,
        topics: Topics,
        endpoints: Endpoints,
        *,
        clock: Clock | None = None,
        http_every: int = _EVERY_HTTP,
    ) -> None:
        self._http_every = http_every
        self._project, self._model, self._topics = project, model, topics
        self._registry, self._store = endpoints.registry, endpoints.store
        self._clock = clock or SystemClock()
        self._codecs = {
            name: RecordCodec(dict(event_type.schema)) for name, event_type in project.event_types.items()
        }
        self._sent = Sent()
        self._events = EventSender(endpoints.ingest_url, list(project.event_types), self._sent)
        # Labels are none of the store's business, so they have a ledger of their own.
        self._labelled = Sent()
        self._labels = EventSender(endpoints.ingest_url, [LABELS], self._labelled)
        self._damaged = DamagedSender(endpoints.kafka, self._sent)
        schema = prediction_request_schema(project)
        self._on_topic = TopicRequester(
            endpoints.kafka,
            topics.prediction_requests,
            RecordCodec(schema),
            self._registry.schema_id(topics.subject(topics.prediction_requests), schema),
        )
        self._over_http = HttpRequester(endpoints.predictor_url, project)
        self._store_watch = StoreWatch(endpoints.store, endpoints.watchdog)
        self._log = PredictionLog(endpoints.kafka, topics.predictions, endpoints.watchdog)
        with TopicReader(endpoints.kafka, topics.all_of(project)) as reader:
            self._began = reader.ends()
        self._freshness_ms: list[float] = []

    def close(self) -> None:
        """Close every connection."""
        self._events.close()
        self._labels.close()
        self._over_http.close()
        self._log.close()

    def play(self, plan: Plan, progress: Callable[[Step], None]) -> Played:
        """Play all steps in order; ``progress`` is called after each.

        Raises
        ------
        PlaybackError
            Where a service rejects what was sent, dies, or makes no progress for a minute.
        """
        started = time.perf_counter()
        records = {name: self._as_records(name, planned.table) for name, planned in plan.events.items()}
        labels = [] if plan.labels is None else _rows(plan.labels)
        requests = self._as_requests(plan.requests)
        for number, step in enumerate(plan.steps):
            self._publish(step, records, measured=number > 0 and number % _EVERY_FRESHNESS == 0)
            if step.labels:
                self._labels.send({LABELS: [labels[row] for row in step.labels]})
            self._request([requests[row] for row in step.requests], step.requests.start)
            progress(step)
        return Played(
            sent=self._sent,
            requested=[request["request_id"] for request in requests],
            over_http=[request["request_id"] for request in requests[:: self._http_every]],
            http_resent=self._over_http.resent,
            http_ms=self._over_http.latencies_ms,
            freshness_ms=self._freshness_ms,
            began=self._began,
            labels=self._labelled.acknowledged,
            seconds=time.perf_counter() - started,
        )

    def _publish(self, step: Step, records: Mapping[str, list[Record]], *, measured: bool) -> None:
        """Steps 1 and 2: send what became known and wait until the store has applied it."""
        events = {name: [records[name][row] for row in rows] for name, rows in step.events.items()}
        started = time.perf_counter()
        self._events.send(events)
        if step.damaged:
            self._damaged.send(
                [
                    (name, *self._damaged_message(name, records[name][row], damage))
                    for name, row, damage in step.damaged
                ]
            )
        self._store_watch.wait_until(self._sent.reached)
        if measured and events and self._read_back(events, step.at_us):
            self._freshness_ms.append((time.perf_counter() - started) * 1e3)

    def _request(self, requests: Sequence[Record], first: int) -> None:
        """Steps 3 and 4: send the requests and wait until the log holds a prediction for each."""
        if not requests:
            return
        over_http = [request for row, request in enumerate(requests, first) if row % self._http_every == 0]
        on_topic = [request for row, request in enumerate(requests, first) if row % self._http_every != 0]
        self._on_topic.send([{**request, "requested_at": self._clock.now_us()} for request in on_topic])
        for request in over_http:
            self._over_http.ask(request)
        self._on_topic.flush()
        self._log.wait_for(request["request_id"] for request in requests)

    def _read_back(self, events: Mapping[str, Sequence[Record]], as_of_us: int) -> bool:
        """Read a feature that the newest event has changed; say whether there was one to read."""
        for name, records in events.items():
            for view in self._project.views_of(name):
                parts = [str(records[-1][name]) for name in view.source.entity_fields]
                entity = join_key(parts) if view.entity.composite else parts[0]
                (values,) = self._store.read([(view, [entity])], np.array([as_of_us], np.int64))
                return bool(values.age_us[0] >= 0)
        return False

    def _damaged_message(self, name: str, record: Record, damage: Damage) -> tuple[str, str, bytes | None]:
        event_type, topic = self._project.event_types[name], self._topics.events(name)
        codec = self._codecs[name]
        schema_id = self._registry.schema_id(self._topics.subject(topic), dict(event_type.schema))
        value = frame(schema_id, codec.encode(codec.from_json(record)))
        return topic, str(record[event_type.key]), damaged(value, damage)

    def _as_records(self, name: str, table: pa.Table) -> list[Record]:
        fields = [field["name"] for field in self._project.event_types[name].schema["fields"]]
        return _rows(table.select(fields))

    def _as_requests(self, table: pa.Table) -> list[Record]:
        columns = ["request_id", "event_time", *self._project.request_entities]
        columns += [field.name for field in self._project.request_inputs]
        return [{**row, "model": self._model, "caller": "playback"} for row in _rows(table.select(columns))]


def _rows(table: pa.Table) -> list[Record]:
    """Return rows as JSON has them: times as microseconds since the epoch."""
    plain = [
        pa.field(field.name, pa.int64()) if pa.types.is_timestamp(field.type) else field
        for field in table.schema
    ]
    rows: list[Record] = table.cast(pa.schema(plain)).to_pylist()
    return rows
