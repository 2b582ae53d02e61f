"""The feature store put together from its settings."""

import threading

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.project import Project
from driftline.runtime.clock import SystemClock
from driftline.runtime.health import Health
from driftline.runtime.logging import get_logger
from driftline.streaming.consumer import PartitionedConsumer
from driftline.streaming.dead_letters import DeadLetterCeiling, DeadLetterTopic
from driftline.streaming.loop import run_pipeline
from services.feature_store.fenced_store import FencedStore
from services.feature_store.pipeline import SERVICE, FeatureStorePipeline, Feed
from services.feature_store.settings import FeatureStoreSettings

_log = get_logger(__name__)


def run_feature_store(
    settings: FeatureStoreSettings, project: Project, *, health: Health, stop: threading.Event
) -> None:
    """Run the store's loop until ``stop`` is set."""
    topics = settings.topics(project)
    feeds = _wait_for_feeds(settings, project, topics, health=health, stop=stop)
    if stop.is_set():
        return
    store = FencedStore(settings.redis_url, prefix=topics.prefix, clock=SystemClock())
    consumer = PartitionedConsumer(
        settings.kafka_config(),
        sorted(feeds),
        group=f"{topics.prefix}.{SERVICE}",
        instance=settings.instance,
        max_batch=settings.max_batch,
        max_poll_interval_ms=settings.max_poll_interval_ms,
    )
    pipeline = FeatureStorePipeline(
        project,
        feeds,
        store,
        DeadLetterTopic(settings.kafka_config(), topics.dead_letters),
        prefix=topics.prefix,
        instance=settings.instance,
        ceiling=DeadLetterCeiling(
            share=settings.dead_letter_share,
            window=settings.dead_letter_window,
            minimum=settings.dead_letter_minimum,
        ),
        oldest=consumer.oldest,
        max_entities=settings.max_entities,
    )
    try:
        run_pipeline(consumer, pipeline, stop=stop, health=health)
    finally:
        store.close()


def _wait_for_feeds(
    settings: FeatureStoreSettings,
    project: Project,
    topics: Topics,
    *,
    health: Health,
    stop: threading.Event,
) -> dict[str, Feed]:
    """Return a feed for each event type, once all topics exist: services start in any order."""
    admin = AdminClient(settings.kafka_config())
    registry = SchemaRegistry(settings.schema_registry_url)
    wanted = {topics.events(name): event_type for name, event_type in project.event_types.items()}
    while not stop.is_set():
        try:
            found = admin.list_topics(timeout=5.0).topics
        except KafkaException as error:
            missing = f"the broker does not answer: {error}"
        else:
            absent = sorted(topic for topic in wanted if topic not in found or found[topic].error)
            if not absent:
                health.set("topics", ready=True)
                return {
                    topic: Feed(
                        event_type=event_type.name,
                        partitions=len(found[topic].partitions),
                        decoder=BatchDecoder(dict(event_type.schema), registry.schema),
                    )
                    for topic, event_type in wanted.items()
                }
            missing = f"waiting for topics {', '.join(absent)} (driftline topics creates them)"
        health.set("topics", ready=False, detail=missing)
        _log.warning(missing)
        stop.wait(1.0)
    return {}
