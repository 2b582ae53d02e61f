"""The profiler put together from its settings; the only place where its clients are made."""

import threading

from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.project_schemas import outcome_schema, platform_schema, prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import PROFILES
from driftline.models.model_reference import ModelReferences
from driftline.project import Project
from driftline.runtime.clock import SystemClock
from driftline.runtime.health import Health
from driftline.streaming.kafka_sink import transactional_member
from driftline.streaming.loop import run_pipeline
from driftline.streaming.service import wait_for_schema, wait_for_topics
from services.profiler.pipeline import SERVICE, ProfilerPipeline
from services.profiler.settings import ProfilerSettings


def run_profiler(
    settings: ProfilerSettings, project: Project, *, health: Health, stop: threading.Event
) -> None:
    """Run the profiler's loop until ``stop`` is set."""
    topics = settings.topics(project)
    kafka = settings.kafka_config()
    target = topics.stream(PROFILES)
    streams = {topics.predictions: "predictions"}
    if project.labelled_models:
        streams[topics.outcomes] = "outcomes"
    found = wait_for_topics(kafka, (*streams, target, topics.dead_letters), health=health, stop=stop)
    if not found:
        return
    registry = SchemaRegistry(settings.schema_registry_url)
    schema = platform_schema("profile")
    schema_id = wait_for_schema(registry, topics.subject(target), schema, health=health, stop=stop)
    if schema_id is None:
        return
    decoders = {topics.predictions: BatchDecoder(prediction_schema(project), registry.schema)}
    if project.labelled_models:
        decoders[topics.outcomes] = BatchDecoder(outcome_schema(project), registry.schema)
    consumer, sink = transactional_member(settings, topics, streams, service=SERVICE)
    pipeline = ProfilerPipeline(
        project,
        decoders,
        streams,
        found,
        sink,
        RecordCodec(schema),
        schema_id,
        ModelReferences(settings.models).find,
        target=target,
        ceiling=settings.ceiling(),
        flush_seconds=settings.flush_seconds,
        flush_rows=settings.flush_rows,
        quiet_seconds=max(settings.quiet_seconds, settings.flush_seconds),
        at_end=consumer.at_end,
        clock=SystemClock(),
    )
    try:
        run_pipeline(consumer, pipeline, stop=stop, health=health)
    finally:
        sink.close()
        registry.close()
