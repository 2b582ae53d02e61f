"""The model registry put together from its settings; the only place where its clients are made."""

import threading
from collections.abc import Mapping
from typing import Any

from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.project_schemas import outcome_schema, platform_schema, prediction_schema
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import MODEL_EVENTS
from driftline.models.life_log import LifeCodec, LifeLog
from driftline.models.tracking import Tracking, tracking_uri
from driftline.playback.topic_reading import TopicReader
from driftline.project import Project
from driftline.runtime.clock import SystemClock
from driftline.runtime.errors import ConfigurationError
from driftline.runtime.health import Health
from driftline.serving.log_reading import LogReader
from driftline.streaming.kafka_sink import transactional_member
from driftline.streaming.loop import run_pipeline
from driftline.streaming.service import wait_for_schema, wait_for_topics
from services.model_registry.outcomes import OutcomeFollower
from services.model_registry.pipeline import SERVICE, ModelRegistryPipeline
from services.model_registry.settings import ModelRegistrySettings
from services.model_registry.traffic import TrafficFollower


def run_model_registry(
    settings: ModelRegistrySettings, project: Project, *, health: Health, stop: threading.Event
) -> None:
    """Run the registry's loop until ``stop`` is set."""
    if not project.models:
        raise ConfigurationError(f"project {project.name!r} declares no model")
    topics = settings.topics(project)
    events = topics.stream(MODEL_EVENTS)
    kafka = settings.kafka_config()
    wanted = (events, topics.outcomes, topics.predictions, topics.dead_letters)
    found = wait_for_topics(kafka, wanted, health=health, stop=stop)
    if not found:
        return
    registry = SchemaRegistry(settings.schema_registry_url)
    schema = platform_schema("model_event")
    schema_id = wait_for_schema(registry, topics.subject(events), schema, health=health, stop=stop)
    if schema_id is None:
        return
    consumer, sink = transactional_member(settings, topics, [events], service=SERVICE)
    outcomes = OutcomeFollower(
        project,
        settings.models,
        lambda: TopicReader(kafka, [topics.outcomes]),
        BatchDecoder(outcome_schema(project), registry.schema),
        health=health,
    )
    traffic = TrafficFollower(
        lambda since_ms: _reader_from(kafka, topics.predictions, since_ms),
        BatchDecoder(prediction_schema(project), registry.schema),
    )
    pipeline = ModelRegistryPipeline(
        project,
        settings.models,
        sink,
        LifeCodec(registry, schema_id),
        lambda: LifeLog(kafka, events, registry),
        outcomes,
        traffic,
        Tracking(tracking_uri(settings.state), settings.state / "mlflow", project.name),
        topic=events,
        partitions=found[events],
        ceiling=settings.ceiling(),
        health=health,
        clock=SystemClock(),
    )
    try:
        run_pipeline(consumer, pipeline, stop=stop, health=health)
    finally:
        outcomes.close()
        traffic.close()
        sink.close()
        registry.close()


def _reader_from(kafka: Mapping[str, Any], topic: str, since_ms: int) -> TopicReader:
    """Open a topic at the first record of each partition that is not older than an instant."""
    with LogReader(kafka) as reader:
        positions = {
            (held.topic, held.partition): reader.offset_at(held, since_ms) for held in reader.held(topic)
        }
    return TopicReader(kafka, [topic], positions=positions)
