"""The predictor put together from its settings."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from fastapi import FastAPI

from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.batch_codec import BatchDecoder, BatchEncoder
from driftline.contracts.project_schemas import prediction_request_schema, prediction_schema
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.features.online import OnlineStore
from driftline.project import Project
from driftline.runtime.acknowledged_producer import AcknowledgedProducer
from driftline.runtime.clock import SystemClock
from driftline.runtime.health import Health
from driftline.runtime.logging import get_logger
from driftline.serving.predict import PredictionEngine
from driftline.serving.rack import ModelRack
from driftline.streaming.consumer import PartitionedConsumer
from driftline.streaming.dead_letters import DeadLetterCeiling
from driftline.streaming.kafka_sink import KafkaSink
from driftline.streaming.loop import run_pipeline
from services.predictor.api import add_routes
from services.predictor.batching import HttpBatches
from services.predictor.pipeline import SERVICE, PredictorPipeline
from services.predictor.settings import PredictorSettings

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """What HTTP and stream share."""

    engine: PredictionEngine
    encoder: BatchEncoder
    rack: ModelRack
    registry: SchemaRegistry
    topics: Topics


def build(
    settings: PredictorSettings, project: Project, app: FastAPI, health: Health
) -> tuple[Predictor, Callable[[], None]]:
    """Build the predictor and add its routes; returns it and how to close it. Waits for nothing but the registry."""
    topics = settings.topics(project)
    registry = SchemaRegistry(settings.schema_registry_url)
    schema = prediction_schema(project)
    encoder = BatchEncoder(schema, registry.schema_id(topics.subject(topics.predictions), schema))
    partitions = {
        name: topics.all_of(project)[topics.events(name)].partitions for name in project.event_types
    }
    store = OnlineStore(settings.redis_url, prefix=topics.prefix, project=project, partitions=partitions)
    rack = ModelRack(settings.models, project)
    engine = PredictionEngine(project, store, rack)
    producer = AcknowledgedProducer(settings.kafka_config(), health=health)
    batches = HttpBatches(
        # One connection each: the stream's large reads do not hold up a caller's small one.
        PredictionEngine(
            project,
            OnlineStore(settings.redis_url, prefix=topics.prefix, project=project, partitions=partitions),
            rack,
        ),
        encoder,
        producer,
        requests=arrow_schema(prediction_request_schema(project)),
        log=topics.predictions,
        max_batch=settings.max_http_batch,
        max_waiting=settings.max_waiting,
    )
    add_routes(app, project, batches=batches, store=store, rack=rack, clock=SystemClock())

    def close() -> None:
        batches.close()
        producer.close()

    return Predictor(engine=engine, encoder=encoder, rack=rack, registry=registry, topics=topics), close


def run_stream(
    settings: PredictorSettings,
    project: Project,
    predictor: Predictor,
    *,
    health: Health,
    stop: threading.Event,
) -> None:
    """Run the stream's loop until ``stop`` is set."""
    topics = predictor.topics
    _wait_for_topics(settings, topics, health=health, stop=stop)
    if stop.is_set():
        return
    group = f"{topics.prefix}.{SERVICE}"
    consumer = PartitionedConsumer(
        settings.kafka_config(),
        [topics.prediction_requests],
        group=group,
        instance=settings.instance,
        max_batch=settings.max_batch,
    )
    sink = KafkaSink(
        settings.kafka_config(),
        consumer,
        group=group,
        service=SERVICE,
        instance=settings.instance,
        dead_letters=topics.dead_letters,
    )

    def look_after() -> None:
        predictor.rack.refresh()
        missing = predictor.rack.missing
        health.set("models", not missing, "; ".join(f"{name}: {why}" for name, why in missing.items()))

    look_after()
    pipeline = PredictorPipeline(
        predictor.engine,
        BatchDecoder(prediction_request_schema(project), predictor.registry.schema),
        predictor.encoder,
        sink,
        log=topics.predictions,
        ceiling=DeadLetterCeiling(share=settings.dead_letter_share),
        look_after=look_after,
    )
    try:
        run_pipeline(consumer, pipeline, stop=stop, health=health)
    finally:
        sink.close()


def _wait_for_topics(
    settings: PredictorSettings, topics: Topics, *, health: Health, stop: threading.Event
) -> None:
    """Wait until the topics exist: services start in any order."""
    admin = AdminClient(settings.kafka_config())
    wanted = (topics.prediction_requests, topics.predictions, topics.dead_letters)
    while not stop.is_set():
        try:
            found = admin.list_topics(timeout=5.0).topics
        except KafkaException as error:
            missing = f"the broker does not answer: {error}"
        else:
            absent = [topic for topic in wanted if topic not in found]
            if not absent:
                health.set("topics", True)
                return
            missing = f"waiting for topics {', '.join(absent)} (`driftline topics create` makes them)"
        health.set("topics", False, missing)
        _log.warning(missing)
        stop.wait(1.0)
