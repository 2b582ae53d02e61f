"""The feature store put together from its settings."""

import threading
from collections.abc import Mapping

from driftline.archive.tables import Archive
from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.project import Project
from driftline.runtime.clock import SystemClock
from driftline.runtime.health import Health
from driftline.streaming.consumer import PartitionedConsumer
from driftline.streaming.dead_letters import DeadLetterTopic
from driftline.streaming.loop import run_pipeline
from driftline.streaming.service import wait_for_redis, wait_for_topics
from services.feature_store.fenced_store import FencedStore
from services.feature_store.past_events import PastEvents
from services.feature_store.pipeline import SERVICE, FeatureStorePipeline, Feed
from services.feature_store.settings import FeatureStoreSettings


def run_feature_store(
    settings: FeatureStoreSettings, project: Project, *, health: Health, stop: threading.Event
) -> None:
    """Run the store's loop until ``stop`` is set."""
    topics = settings.topics(project)
    partitions = wait_for_topics(
        settings.kafka_config(), map(topics.events, project.fed_by), health=health, stop=stop
    )
    if not partitions or not wait_for_redis(settings.redis_url, health=health, stop=stop):
        return
    registry = SchemaRegistry(settings.schema_registry_url)
    feeds = _feeds(project, topics, registry, partitions)
    archive = Archive.at(settings.archive, topics.prefix) if settings.archive else None
    store = FencedStore(settings.redis_url, prefix=topics.prefix, clock=SystemClock())
    consumer = PartitionedConsumer(
        settings.kafka_config(),
        sorted(feeds),
        group=f"{topics.prefix}.{SERVICE}",
        instance=settings.instance,
        max_batch=settings.max_batch,
        max_poll_interval_ms=settings.max_poll_interval_ms,
    )
    past = PastEvents(
        settings.kafka_config(),
        consumer.oldest,
        schemas={topics.events(name): kind.schema for name, kind in project.fed_by.items()},
        archive=archive,
        max_batch=settings.max_batch,
    )
    pipeline = FeatureStorePipeline(
        project,
        feeds,
        store,
        DeadLetterTopic(settings.kafka_config(), topics.dead_letters),
        prefix=topics.prefix,
        instance=settings.instance,
        ceiling=settings.ceiling(),
        log=consumer,
        past=past,
        max_entities=settings.max_entities,
        backfill_share=settings.backfill_share,
    )
    health.show("filling", pipeline.filling)
    try:
        run_pipeline(consumer, pipeline, stop=stop, health=health, between=pipeline.fill_views)
    finally:
        pipeline.close()
        store.close()
        registry.close()


def _feeds(
    project: Project, topics: Topics, registry: SchemaRegistry, partitions: Mapping[str, int]
) -> dict[str, Feed]:
    """Return a feed for each event type that views may read."""
    return {
        topics.events(name): Feed(
            event_type=name,
            partitions=partitions[topics.events(name)],
            decoder=BatchDecoder(dict(event_type.schema), registry.schema),
            own=name in project.event_types,
        )
        for name, event_type in project.fed_by.items()
    }
