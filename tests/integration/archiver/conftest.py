"""An archiver in this process on a real broker and registry, and what it must leave in its tables."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable

from driftline.archive.tables import BAD, TOPICS, Archive, app_id, open_table
from driftline.contracts.admin import create_topics
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.contracts.wire import frame
from driftline.project import Project, load_project
from driftline.runtime.health import Health
from driftline.streaming.consumer import PartitionedConsumer
from services.archiver.assembly import make_feed, run_until_flushed
from services.archiver.decoding import AvroDecoder, RawDecoder
from services.archiver.pipeline import SERVICE, ArchiverPipeline, Limits

PARTITIONS = 2
FIRST_DAY_US = 1_357_000_000_000_000
DAY_US = 86_400_000_000
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Payment",
    "namespace": "driftline.test",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "customer", "type": "string"},
        {"name": "paid_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "amount", "type": ["null", "float"], "default": None},
        {"name": "pieces", "type": "int", "default": 1},
    ],
}
EVENTS = "{schema: schemas/payment.avsc, key: customer, event_time: paid_at, partitions: 2}"


@dataclass(kw_only=True)
class World:
    """The infrastructure of one test and what was published."""

    kafka: str
    registry: SchemaRegistry
    project: Project
    topics: Topics
    archive: Archive
    schema_id: int
    published: int = 0
    rubbish: int = 0
    _codecs: dict[int, RecordCodec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.producer = Producer(
            {"bootstrap.servers": self.kafka, "linger.ms": 5, "enable.idempotence": True}
        )
        self._codecs[self.schema_id] = RecordCodec(SCHEMA)

    @property
    def config(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.kafka}

    @property
    def topic(self) -> str:
        return self.topics.events("payments")

    def evolve(self, schema: dict[str, Any]) -> int:
        """Register a schema that follows, and return its id."""
        schema_id = self.registry.register(self.topics.subject(self.topic), schema)
        self._codecs[schema_id] = RecordCodec(schema)
        return schema_id

    def publish(self, count: int, *, schema_id: int | None = None, **values: Any) -> None:
        """Publish payments; the n-th ever is ``p<n>``, and every tenth day another."""
        chosen = self.schema_id if schema_id is None else schema_id
        for number in range(self.published, self.published + count):
            record = {
                "event_id": f"p{number}",
                "customer": f"c{number % 7}",
                "paid_at": FIRST_DAY_US + number % 3 * DAY_US,
                "amount": None if number % 5 == 0 else number / 4,
                "pieces": number,
                **values,
            }
            self.producer.produce(
                self.topic,
                value=frame(chosen, self._codecs[chosen].encode(record)),
                key=f"c{number % 7}",
                partition=number % PARTITIONS,
            )
            if number % 5_000 == 0:
                self.producer.poll(0)
        self.published += count
        assert self.producer.flush(60) == 0

    def publish_raw(self, value: bytes | None, *, headers: Any = None, topic: str | None = None) -> None:
        """Publish something that is no good payment."""
        self.producer.produce(topic or self.topic, value=value, key="c1", headers=headers, partition=0)
        assert self.producer.flush(20) == 0

    def end(self, topic: str, number: int) -> int:
        consumer = Consumer({**self.config, "group.id": "ends"})
        try:
            return consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]
        finally:
            consumer.close()

    def assemble(
        self, *, instance: str = "archiver-0", seconds: float = 0.2, rows: int = 300, max_batch: int = 100
    ) -> "Assembly":
        """Return an archiver of the payments and the dead letters."""
        subject = self.topics.subject(self.topic)
        decoder = AvroDecoder(
            self.topic,
            self.registry.schema,
            lambda: self.registry.latest(subject),
            event_times=("paid_at",),
        )
        letters = self.topics.dead_letters
        feeds = {
            self.topic: make_feed(self.archive, self.topic, decoder=decoder),
            letters: make_feed(self.archive, letters, decoder=RawDecoder()),
        }
        consumer = PartitionedConsumer(
            self.config,
            sorted(feeds),
            group=self.archive.group(SERVICE),
            instance=instance,
            max_batch=max_batch,
        )
        pipeline = ArchiverPipeline(feeds, Limits(seconds=seconds, rows=rows, size=1 << 30))
        return Assembly(consumer=consumer, pipeline=pipeline, world=self)

    def run(self, *, until: Callable[[], bool] | None = None, seconds: float = 60, **options: Any) -> None:
        """Run an archiver until it has everything (or ``until``); whatever it raises comes out."""
        self.assemble(**options).run(until=until or self.caught_up, seconds=seconds)

    def caught_up(self) -> bool:
        """Tell whether every offset of both topics is in a commit."""
        wanted = [(self.topic, 0), (self.topic, 1), (self.topics.dead_letters, 0)]
        return all(self.stored(*place) == (self.end(*place) or None) for place in wanted)

    def stored(self, topic: str, number: int) -> int | None:
        """Return the next offset of a partition, as the table's log has it."""
        uri = self.archive.table(TOPICS, self.archive.stream(topic))
        if not DeltaTable.is_deltatable(uri):
            return None
        return DeltaTable(uri).transaction_version(app_id(self.archive.group(SERVICE), topic, number))

    def rows(self, stream: str = "payments", kind: str = TOPICS) -> list[dict[str, Any]]:
        """Return a table's rows in the order of the log; none where there is no table."""
        table = open_table(self.archive.table(kind, stream))
        if table is None:
            return []
        found: pa.Table = table.to_pyarrow_dataset().to_table()
        return found.sort_by([("_partition", "ascending"), ("_offset", "ascending")]).to_pylist()  # type: ignore[no-any-return]

    def bad(self) -> list[dict[str, Any]]:
        return self.rows(kind=BAD)

    def assert_exact(self) -> None:
        """Every offset of the topic is in one of the two tables; every payment is there once, with its values."""
        rows, bad = self.rows(), self.bad()
        for number in range(PARTITIONS):
            offsets = sorted(row["_offset"] for row in (*rows, *bad) if row["_partition"] == number)
            assert _doubled(offsets) == []
            assert offsets == list(range(self.end(self.topic, number)))
        events = [row["event_id"] for row in rows]
        assert _doubled(events) == []
        assert set(events) == {f"p{n}" for n in range(self.published)}
        for row in rows:
            number = int(row["event_id"][1:])
            assert row["pieces"] == number
            assert row["amount"] == (None if number % 5 == 0 else number / 4)
            assert row["_partition"] == number % PARTITIONS
            assert row["_event_date"] == row["paid_at"].date()


def _doubled(values: Sequence[Any]) -> list[Any]:
    return [value for value, times in Counter(values).items() if times > 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """An archiver that is ready to run."""

    consumer: PartitionedConsumer
    pipeline: ArchiverPipeline
    world: World

    def run(self, *, until: Callable[[], bool], seconds: float = 60) -> None:
        """Run until the condition holds, then stop as SIGTERM does."""
        stop, over = threading.Event(), threading.Event()

        def watch() -> None:
            until_time = time.monotonic() + seconds
            try:
                while not over.is_set() and not until():
                    if time.monotonic() > until_time:
                        late.append(True)
                        break
                    over.wait(0.1)
            finally:
                stop.set()

        late: list[bool] = []
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            run_until_flushed(self.consumer, self.pipeline, stop=stop, health=Health())
        finally:
            over.set()
            watcher.join()
        assert not late, "the archiver did not get there in time"


def write_project(folder: Path, name: str) -> Project:
    """Write a small project."""
    (folder / "schemas").mkdir(parents=True)
    (folder / "schemas" / "payment.avsc").write_text(json.dumps(SCHEMA))
    (folder / "features.py").write_text('"""No features: the archive needs none."""\n')
    (folder / "driftline.yaml").write_text(
        f"name: {name}\nowner: tests@example.com\ndescription: Payments to archive.\nevents:\n  payments: {EVENTS}\n"
    )
    return load_project(folder)


@pytest.fixture
def world(kafka: str, registry_url: str, unique: str, tmp_path: Path) -> Iterator[World]:
    project = write_project(tmp_path / "project", f"ar{unique}")
    topics = Topics(project.name)
    create_topics({"bootstrap.servers": kafka}, project, topics)
    registry = SchemaRegistry(registry_url)
    ids = registry.register_project(project, topics)
    yield World(
        kafka=kafka,
        registry=registry,
        project=project,
        topics=topics,
        archive=Archive.at(str(tmp_path / "archive"), topics.prefix),
        schema_id=ids[topics.events("payments")],
    )
    registry.close()
    _delete_topics(kafka, list(topics.all_of(project)))


def _delete_topics(kafka: str, names: Sequence[str]) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.delete_topics(list(names)).values():
        future.result(20)
