"""The trainer put together from its settings; the only place where its clients are made."""

import threading
from collections.abc import Callable

from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import MODEL_EVENTS, RETRAIN_REQUESTS
from driftline.models.life_log import LifeCodec, LifeLog
from driftline.models.retraining_job import RetrainingJob
from driftline.models.tracking import Tracking, tracking_uri
from driftline.project import Project
from driftline.runtime.errors import ConfigurationError
from driftline.runtime.health import Health
from driftline.streaming.kafka_sink import transactional_member
from driftline.streaming.loop import run_pipeline
from driftline.streaming.service import wait_for_schema, wait_for_topics
from services.trainer.pipeline import SERVICE, TrainerPipeline
from services.trainer.settings import TrainerSettings


def run_trainer(
    settings: TrainerSettings, project: Project, *, health: Health, stop: threading.Event
) -> None:
    """Run the trainer's loop until ``stop`` is set."""
    if not project.models or project.history_module is None:
        raise ConfigurationError(f"project {project.name!r} declares no model, or no `history` to train on")
    topics = settings.topics(project)
    requests, events = topics.stream(RETRAIN_REQUESTS), topics.stream(MODEL_EVENTS)
    kafka = settings.kafka_config()
    if not wait_for_topics(kafka, (requests, events, topics.dead_letters), health=health, stop=stop):
        return
    registry = SchemaRegistry(settings.schema_registry_url)
    schema = platform_schema("model_event")
    schema_id = wait_for_schema(registry, topics.subject(events), schema, health=health, stop=stop)
    if schema_id is None:
        return
    tracking = Tracking(tracking_uri(settings.state), settings.state / "mlflow", project.name)

    def make_job(progress: Callable[[str], None]) -> RetrainingJob:
        return RetrainingJob(project, settings.models, tracking, progress=progress)

    consumer, sink = transactional_member(settings, topics, [requests], service=SERVICE, max_batch=1)
    pipeline = TrainerPipeline(
        project,
        sink,
        registry,
        LifeCodec(registry, schema_id),
        make_job,
        lambda: LifeLog(kafka, events, registry),
        target=events,
        ceiling=settings.ceiling(),
        health=health,
        stop=stop,
    )
    try:
        run_pipeline(consumer, pipeline, stop=stop, health=health)
    finally:
        sink.close()
        registry.close()
