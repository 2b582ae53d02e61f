"""The archiver put together from its settings."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack

from driftline.alerts.causes import Causes
from driftline.alerts.input_log import InputLog
from driftline.alerts.loading import load_rules
from driftline.archive.sink import TopicTable
from driftline.archive.tables import BAD, TOPICS, Archive
from driftline.contracts.prediction_fields import EVENT_TIME, PREDICTED_AT
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Stream, Topics
from driftline.project import Project
from driftline.project.loading import FILE
from driftline.replay.records import ArchiveRecords
from driftline.runtime.health import Health
from driftline.streaming.consumer import PartitionedConsumer
from driftline.streaming.loop import run_pipeline
from driftline.streaming.partitions import Partition
from driftline.streaming.service import wait_for_topics
from services.archiver.decoding import AvroDecoder, Decoder, RawDecoder
from services.archiver.parity_watch import ParityWatch, Rhythm
from services.archiver.pipeline import SERVICE, ArchiverPipeline, Feed, Limits
from services.archiver.settings import ArchiverSettings
from services.archiver.upkeep import Upkeep


def run_archiver(
    settings: ArchiverSettings, project: Project, *, health: Health, stop: threading.Event
) -> None:
    """Run the archiver's loop until ``stop`` is set; what is held then is committed first."""
    topics = settings.topics(project)
    streams = topics.all_of(project)
    if not wait_for_topics(settings.kafka_config(), streams, health=health, stop=stop):
        return
    archive = Archive.at(settings.archive, topics.prefix)
    with SchemaRegistry(settings.schema_registry_url) as registry:
        feeds = {
            topic: make_feed(archive, topic, decoder=_decoder(project, topics, topic, stream, registry))
            for topic, stream in streams.items()
        }
        limits = Limits(seconds=settings.flush_seconds, rows=settings.flush_rows, size=settings.flush_bytes)
        pipeline = ArchiverPipeline(feeds, limits)
        consumer = PartitionedConsumer(
            settings.kafka_config(),
            sorted(feeds),
            group=archive.group(SERVICE),
            instance=settings.instance,
            max_batch=settings.max_batch,
            max_poll_interval_ms=settings.max_poll_interval_ms,
        )
        upkeep = Upkeep(
            lambda: looked_after(pipeline, feeds),
            seconds=settings.compact_seconds,
            vacuum_hours=settings.vacuum_hours,
        )
        upkeep.start()
        with ExitStack() as closing:
            closing.callback(upkeep.stop)
            if settings.parity_seconds:
                watch = make_parity_watch(settings, project, topics, registry, pipeline, closing)
                watch.start()
                closing.callback(watch.stop)
            run_until_flushed(consumer, pipeline, stop=stop, health=health)


def make_parity_watch(
    settings: ArchiverSettings,
    project: Project,
    topics: Topics,
    registry: SchemaRegistry,
    pipeline: ArchiverPipeline,
    closing: ExitStack,
) -> ParityWatch:
    """Return the watch over parity; it looks where this process has partition 0 of the predictions."""
    log = InputLog(settings.kafka_config(), topics, registry)
    closing.callback(log.close)
    causes = Causes(prefix=topics.prefix, team=project.owner, rules=load_rules(project.folder / FILE))
    records = ArchiveRecords(Archive.at(settings.archive, topics.prefix), lambda _: None)
    return ParityWatch(
        project,
        records,
        causes,
        log.put,
        mine=lambda: Partition(topics.predictions, 0) in pipeline.owned,
        rhythm=Rhythm(
            seconds=settings.parity_seconds,
            settle_seconds=settings.parity_settle_seconds,
            grace_seconds=settings.parity_grace_seconds,
            share=settings.parity_share,
        ),
    )


def run_until_flushed(
    consumer: PartitionedConsumer, pipeline: ArchiverPipeline, *, stop: threading.Event, health: Health
) -> None:
    """Run until ``stop`` is set, then commit what is held while the partitions are still ours."""

    def done() -> bool:
        if not stop.is_set():
            return False
        pipeline.flush()
        return True

    run_pipeline(consumer, pipeline, stop=threading.Event(), health=health, until=done)


def make_feed(archive: Archive, topic: str, *, decoder: Decoder) -> Feed:
    """Return the feed of a topic, with its two tables."""
    stream, group = archive.stream(topic), archive.group(SERVICE)
    return Feed(
        topic=topic,
        decoder=decoder,
        table=TopicTable(archive.table(TOPICS, stream), group=group),
        bad=TopicTable(archive.table(BAD, stream), group=group),
    )


def looked_after(pipeline: ArchiverPipeline, feeds: dict[str, Feed]) -> Iterator[str]:
    """Yield the tables of which this process has partition 0: so each is compacted by one process."""
    for partition in sorted(pipeline.owned):
        if partition.number == 0:
            yield feeds[partition.topic].table.uri
            yield feeds[partition.topic].bad.uri


def _decoder(
    project: Project, topics: Topics, topic: str, stream: Stream, registry: SchemaRegistry
) -> Decoder:
    if stream.schema_.startswith("none"):
        return RawDecoder()
    event_type = project.event_types.get(topic.removeprefix(f"{topics.prefix}."))
    own = (event_type.event_time,) if event_type else ()
    subject = topics.subject(topic)
    return AvroDecoder(
        topic,
        registry.schema,
        lambda: registry.latest(subject),
        event_times=(*own, EVENT_TIME, PREDICTED_AT),
    )
