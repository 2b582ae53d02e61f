"""The outcome joiner put together from its settings; the only place where its clients are made."""

import math
import threading

from driftline.contracts.batch_codec import BatchDecoder, BatchEncoder
from driftline.contracts.project_schemas import label_schema, outcome_schema, prediction_schema
from driftline.contracts.registry import SchemaRegistry
from driftline.project import Project
from driftline.runtime import metrics
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.runtime.health import Health
from driftline.streaming.kafka_sink import transactional_member
from driftline.streaming.loop import run_pipeline
from driftline.streaming.partitions import Partition
from driftline.streaming.service import wait_for_redis, wait_for_schema, wait_for_topics
from driftline.streaming.stall_guard import StallGuard
from services.outcome_joiner.outcomes import OutcomeColumns
from services.outcome_joiner.pipeline import SERVICE, OutcomeJoinerPipeline, Sides
from services.outcome_joiner.rebuild import rebuild
from services.outcome_joiner.settings import OutcomeJoinerSettings
from services.outcome_joiner.waiting_room import WaitingRoom


def run_outcome_joiner(
    settings: OutcomeJoinerSettings, project: Project, *, health: Health, stop: threading.Event
) -> None:
    """Run the joiner's loop until ``stop`` is set."""
    if not project.labelled_models:
        raise ConfigurationError(
            f"no model of project {project.name!r} declares a `label`, so nothing can be joined"
        )
    topics = settings.topics(project)
    kafka = settings.kafka_config()
    found = wait_for_topics(
        kafka,
        (topics.predictions, topics.labels, topics.outcomes, topics.dead_letters),
        health=health,
        stop=stop,
    )
    if not found or not wait_for_redis(settings.redis_url, health=health, stop=stop):
        return
    registry = SchemaRegistry(settings.schema_registry_url)
    schema = outcome_schema(project)
    schema_id = wait_for_schema(registry, topics.subject(topics.outcomes), schema, health=health, stop=stop)
    if schema_id is None:
        return
    sides = Sides(
        predictions=topics.predictions,
        labels=topics.labels,
        prediction_decoder=BatchDecoder(prediction_schema(project), registry.schema),
        label_decoder=BatchDecoder(label_schema(), registry.schema),
        columns=OutcomeColumns(project),
    )
    every = [
        Partition(topic, number)
        for topic in (topics.predictions, topics.labels)
        for number in range(found[topic])
    ]
    horizon_us = max(one.label.horizon_us for one in project.labelled_models if one.label is not None)
    room = WaitingRoom(
        settings.redis_url,
        prefix=topics.prefix,
        places=len(every),
        ttl_seconds=math.ceil(horizon_us / 1e6 * settings.keep_factor),
    )
    consumer, sink = transactional_member(
        settings, topics, [topics.predictions, topics.labels], service=SERVICE
    )

    guard = StallGuard(consumer.max_silence)

    def goes_on() -> None:
        guard.turned()
        if stop.is_set():
            raise UnavailableError("the rebuild was left off: the process is to stop")

    def build_anew() -> None:
        committed = consumer.committed(every)
        rebuild(room, sides, kafka, owner=settings.instance, committed=committed, progress=goes_on)

    def look_after(counts: dict[str, int]) -> None:
        for what, number in counts.items():
            metrics.LABELS_SETTLED.labels(what).set(number)
        health.set(
            "labels", ready=True, detail=", ".join(f"{n:,} {what}" for what, n in sorted(counts.items()))
        )

    pipeline = OutcomeJoinerPipeline(
        sides,
        room,
        sink,
        BatchEncoder(schema, schema_id),
        log=topics.outcomes,
        ceiling=settings.ceiling(),
        rebuild=build_anew,
        look_after=look_after,
    )
    try:
        run_pipeline(consumer, pipeline, stop=stop, health=health, guard=guard)
    finally:
        sink.close()
        room.close()
        registry.close()
