"""What the commands about models share: a project's model events, and how they are shown."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from driftline.cli.options import settings_for
from driftline.contracts.project_schemas import outcome_schema, platform_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import MODEL_EVENTS, Topics
from driftline.contracts.wire import frame, split
from driftline.models.life_log import LifeLog
from driftline.models.lifecycle import ModelHistory, fold
from driftline.models.model_event import ModelEvent
from driftline.playback.topic_reading import TopicReader
from driftline.project import Project
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.clock import instant_us, text_us
from driftline.runtime.errors import BadMessageError, RefusedError
from driftline.runtime.settings import PlatformSettings

ModelArgument = Annotated[str, typer.Argument(help="Name of the model; may be left out where there is one.")]
VersionArgument = Annotated[str, typer.Argument(help="Version, as `driftline models list` shows it.")]
_TAIL = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A project with its topics and registry."""

    settings: PlatformSettings
    project: Project
    registry: SchemaRegistry

    @property
    def topics(self) -> Topics:
        """Names of the project's topics."""
        return self.settings.topics(self.project)

    def model(self, name: str) -> str:
        """Return the model that is meant."""
        known = ", ".join(sorted(self.project.models)) or "none"
        if name in self.project.models:
            return name
        if not name and len(self.project.models) == 1:
            return next(iter(self.project.models))
        what = f"has no model {name!r}" if name else "has not exactly one model"
        raise RefusedError(f"project {self.project.name!r} {what}; its models: {known}")

    def events(self) -> list[ModelEvent]:
        """Return everything in `model-events`."""
        with LifeLog(self.settings.kafka_config(), self.topics.stream(MODEL_EVENTS), self.registry) as log:
            return log.read_to_end()

    def history(self, model: str) -> ModelHistory:
        """Return the history of a model."""
        return fold(model, self.events())

    def send(self, stream: str, schema: str, key: str, record: Mapping[str, Any]) -> None:
        """Add a record to a stream, and wait for the broker."""
        topic = self.topics.stream(stream)
        declared = platform_schema(schema)
        body = RecordCodec(declared).encode(record)
        value = frame(self.registry.schema_id(self.topics.subject(topic), declared), body)
        producer = AcknowledgedProducer(self.settings.kafka_config())
        try:
            producer.submit(topic, key, value).result(30)
        finally:
            producer.close()

    def event_clock_us(self) -> int:
        """Return how far event time has come: the newest label that an outcome has; now where there is none."""
        codec = RecordCodec(outcome_schema(self.project))
        newest = 0
        with TopicReader(self.settings.kafka_config(), [self.topics.outcomes]) as reader:
            reader.seek_back(_TAIL)
            for message in reader.read_to_end():
                try:
                    schema_id, body = split(message.value())
                    record = codec.decode(body, self.registry.schema(schema_id))
                except BadMessageError:
                    continue
                newest = max(newest, instant_us(record["label_known_at"]))
        return newest or time.time_ns() // 1000


@contextmanager
def open_desk(folder: Path) -> Iterator[Desk]:
    """Open a project's desk."""
    settings, project = settings_for(folder)
    with SchemaRegistry(settings.schema_registry_url) as registry:
        yield Desk(settings=settings, project=project, registry=registry)


def told_event(event: ModelEvent) -> dict[str, Any]:
    """Return an event as JSON shows it."""
    return {
        **event.record(),
        "effective_at": shown_time(event.effective_us),
        "at": shown_time(event.at_us),
        "data_until": None if event.data_until_us is None else shown_time(event.data_until_us),
        "evidence": event.told,
    }


def read_instant(text: str) -> int:
    """Return the instant of a text that a person wrote."""
    try:
        return text_us(text)
    except ValueError as error:
        raise RefusedError(f"{text!r} is no ISO 8601 instant, like 2013-06-15T12:00") from error


def shown_time(us: int) -> str:
    """Return an instant as people read it."""
    return (
        datetime.fromtimestamp(us / 1e6, tz=UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
    )
