"""The market's topics on the real servers, its services in threads, what goes in and what came out."""

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer

from driftline.contracts.admin import create_topics
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.batch_codec import BatchEncoder
from driftline.contracts.project_schemas import outcome_schema, platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import DEAD_LETTERS, MODEL_EVENTS, RETRAIN_REQUESTS, Topics
from driftline.contracts.wire import frame
from driftline.models.fitting import declared_model, gather, midnight_us
from driftline.models.life_log import LifeLog
from driftline.models.lifecycle import ModelHistory, fold
from driftline.models.model_event import Kind, ModelEvent
from driftline.models.retraining import RetrainRequest
from driftline.models.retraining_job import RetrainingJob
from driftline.models.tracking import Tracking, tracking_uri
from driftline.models.training import train
from driftline.playback.topic_reading import TopicReader
from driftline.project import Project, load_project
from driftline.runtime.durations import DAY_US
from driftline.runtime.health import Health
from driftline.runtime.settings import PlatformSettings
from tests.unit.models_life.market import START, TURN, ask, write_market

MODEL = "returns"


@dataclass(kw_only=True)
class Prepared:
    """A champion from before the turn, a challenger from after it, and the challenger's facts: made once."""

    project: Project
    models: Path
    champion: str
    facts: list[ModelEvent]


def prepare(folder: Path, until_us: int) -> Prepared:
    project = load_project(write_market(folder / "market"))
    models = folder / "models"
    champion = train(project, MODEL, models, start=START, end=TURN).bundle.manifest.version
    tracking = Tracking(tracking_uri(folder), folder / "mlflow", project.name)
    facts = RetrainingJob(project, models, tracking).run(ask(until_us))
    return Prepared(project=project, models=models, champion=champion, facts=facts)


@dataclass(kw_only=True)
class Life:
    """One project's topics under a prefix of its own."""

    project: Project
    state: Path
    kafka: str
    registry_url: str
    environment: str
    ids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        create_topics(self.config, self.project, self.topics)
        self.registry = SchemaRegistry(self.registry_url)
        self.ids = self.registry.register_project(self.project, self.topics)
        self.producer = Producer({**self.config, "partitioner": "murmur2_random"})

    @property
    def models(self) -> Path:
        return self.state / "models"

    @property
    def topics(self) -> Topics:
        return Topics(self.project.name, self.environment)

    @property
    def config(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.kafka}

    def settings(self, kind: type[PlatformSettings], instance: str, **more: Any) -> Any:
        return kind(
            kafka_bootstrap_servers=self.kafka,
            schema_registry_url=self.registry_url,
            project=self.project.folder,
            environment=self.environment,
            instance=instance,
            state=self.state,
            models=self.models,
            **more,
        )

    # What goes in

    def send(self, stream: str, schema: str, key: str, record: dict[str, Any]) -> None:
        topic = self.topics.stream(stream)
        body = RecordCodec(platform_schema(schema)).encode(record)
        self.producer.produce(topic, frame(self.ids[topic], body), key)
        assert self.producer.flush(20) == 0

    def request(self, request: RetrainRequest) -> None:
        self.send(RETRAIN_REQUESTS, "retrain_request", request.model, request.record())

    def event(self, *events: ModelEvent) -> None:
        for event in events:
            self.send(MODEL_EVENTS, "model_event", event.model, event.record())

    def command(self, kind: Kind, version: str | None = None, at_us: int = 0) -> ModelEvent:
        made = ModelEvent(
            event_id=str(uuid.uuid4()),
            model=MODEL,
            version=version,
            kind=kind,
            reason="because",
            effective_us=at_us,
            by="ann",
            at_us=time.time_ns() // 1000,
        )
        self.event(made)
        return made

    def outcomes(self, start: date, end: date) -> int:
        """Publish the outcomes of a span's requests, with their features as they would have been served."""
        schema = outcome_schema(self.project)
        table = outcome_rows(self.project, start, end)
        topic = self.topics.outcomes
        values = BatchEncoder(schema, self.ids[topic]).encode(table)
        for key, value in zip(table.column("request_id").to_pylist(), values, strict=True):
            self.producer.produce(topic, value, key)
            self.producer.poll(0)
        assert self.producer.flush(30) == 0
        return len(values)

    # What came out

    def log(self) -> list[ModelEvent]:
        with LifeLog(self.config, self.topics.stream(MODEL_EVENTS), self.registry) as log:
            return log.read_to_end()

    def history(self) -> ModelHistory:
        return fold(MODEL, self.log())

    def dead_letters(self) -> int:
        with TopicReader(self.config, [self.topics.stream(DEAD_LETTERS)]) as reader:
            return len(list(reader.read_to_end()))

    def wait(self, until: Callable[[ModelHistory], bool], seconds: float = 60) -> ModelHistory:
        deadline = time.monotonic() + seconds
        while not until(found := self.history()):
            shown = [(one.kind.value, one.version, one.reason) for one in found.events]
            assert time.monotonic() < deadline, shown
            time.sleep(0.2)
        return found

    def close(self) -> None:
        self.registry.close()


def outcome_rows(project: Project, start: date, end: date) -> pa.RecordBatch:
    model = declared_model(project, MODEL)
    rows = gather(
        project, model, start=START, until_us=midnight_us(end), known_by_us=midnight_us(end) + DAY_US
    )
    taken = np.flatnonzero(rows.rows.as_of_us >= midnight_us(start))
    numeric = {
        name: pa.array(rows.rows.numeric[taken, at].astype(float), from_pandas=True)
        for at, name in enumerate(model.numeric_columns)
    }
    given: dict[str, Any] = {
        "request_id": [rows.request_ids[at] for at in taken],
        "label_id": [f"label of {rows.request_ids[at]}" for at in taken],
        "label": rows.rows.labels[taken].astype(float),
        "event_time": rows.rows.as_of_us[taken],
        "label_known_at": rows.rows.label_known_us[taken],
        **numeric,
        **{name: [values[at] for at in taken] for name, values in rows.rows.categorical.items()},
    }
    fixed = {"model": MODEL, "model_version": "?", "kind": "JOINED", "decision": "kept", "score": 0.5}
    schema = arrow_schema(outcome_schema(project))
    columns = []
    for one in schema:
        default = None if one.nullable else 0
        found = given.get(one.name, [fixed.get(one.name, default)] * len(taken))
        columns.append((found if isinstance(found, pa.Array) else pa.array(found)).cast(one.type))
    table = pa.RecordBatch.from_arrays(columns, schema=schema)
    return table.take(pa.array(np.argsort(rows.rows.label_known_us[taken], kind="stable")))


def copy_models(source: Path, target: Path, *, without: str | None = None) -> None:
    """A models folder of the test's own."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*([without] if without else [])))


@contextmanager
def running(run: Callable[[Health, threading.Event], None], service: str) -> Iterator[Health]:
    """A service's loop in a thread; its failure is the test's."""
    stop, health, failures = threading.Event(), Health(service, f"{service}-0"), []

    def target() -> None:
        try:
            run(health, stop)
        except BaseException as error:  # noqa: BLE001 - shown at the end
            failures.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield health
    finally:
        stop.set()
        thread.join(90)
        assert not thread.is_alive()
        if failures:
            raise failures[0]
