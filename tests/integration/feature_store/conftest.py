"""A feature store in this process, on a real broker, registry and Redis, that tests can crash where they like."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.archive.tables import Archive
from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.contracts.wire import frame
from driftline.features import Entity, FeatureView, Source, count, join_key, last, mean, std, sum_of
from driftline.features import field as event_field
from driftline.features.filling import Standing, read_standings
from driftline.features.keys import blob_key, owner_key, partition_of
from driftline.features.layout import ViewLayout
from driftline.features.update import apply_events
from driftline.project import EventType, Project
from driftline.runtime.clock import SystemClock
from driftline.runtime.health import Health
from driftline.streaming.consumer import PartitionedConsumer
from driftline.streaming.dead_letters import DeadLetterCeiling, DeadLetterTopic
from driftline.streaming.loop import run_pipeline
from services.feature_store.fenced_store import FencedStore
from services.feature_store.past_events import PastEvents
from services.feature_store.pipeline import FeatureStorePipeline, Feed

PARTITIONS = 2
NOW_US = time.time_ns() // 1_000
_SCHEMA = {
    "type": "record",
    "name": "Payment",
    "namespace": "driftline.test",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "customer", "type": "string"},
        {"name": "merchant", "type": ["null", "string"], "default": None},
        {"name": "paid_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "amount", "type": ["null", "double"], "default": None},
        {"name": "kind", "type": "string", "default": "card"},
    ],
}
_CUSTOMER = Source("payments", Entity("customer"), "paid_at")
_MERCHANT = Source("payments", Entity("merchant"), "paid_at")
LARGE = FeatureView(
    "large",
    1,
    _CUSTOMER,
    [count().over("24h"), sum_of("amount").where(event_field("merchant") == "m1").over("24h").named("at_m1")],
    where=event_field("amount") > 20,
)
#: One pair is keyed by what keys the topic too, so it has one home; the other lies in several partitions.
_PAIR = Source("payments", Entity("pair", keys=("customer", "merchant")), "paid_at")
_DAY = Source("payments", Entity("kind_at", keys=("merchant", "kind")), "paid_at")
VIEWS = (
    LARGE,
    FeatureView("pairs", 1, _PAIR, [count().over("24h"), last("amount")]),
    FeatureView("kinds", 1, _DAY, [count().over("24h"), mean("amount").over("24h")]),
    FeatureView("spent", 1, _CUSTOMER, [count().over("1h"), sum_of("amount").over("24h"), last("amount")]),
    FeatureView("earned", 1, _MERCHANT, [mean("amount").over("24h"), std("amount").over("24h")]),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """An event of the tests."""

    event_id: str
    customer: str
    paid_at: int = NOW_US
    merchant: str | None = "m"
    amount: float | None = 1.0
    kind: str = "card"


@pytest.fixture(name="payments")
def payments_fixture() -> Callable[..., list[Payment]]:
    """Return the maker of payments."""
    return payments


def payments(total: int, *, start: int = 0, customers: int = 20) -> list[Payment]:
    """Return payments over the last hours, out of order, some without an amount or a merchant."""
    random = np.random.default_rng(start)
    return [
        Payment(
            event_id=f"payment-{number}",
            customer=f"c{number % customers}",
            merchant=f"m{number % 7}" if number % 11 else None,
            paid_at=NOW_US - int(random.integers(0, 20 * 3_600_000_000)),
            amount=round(float(random.normal(20, 9)), 2) if number % 5 else None,
            kind=("card", "~cash,", "")[number % 3],
        )
        for number in range(start, start + total)
    ]


@dataclass(kw_only=True)
class World:
    """The infrastructure of one test and what was published."""

    kafka: str
    redis_url: str
    registry: SchemaRegistry
    project: Project
    topics: Topics
    schema_id: int
    client: Any
    archive: Archive | None = None
    published: list[tuple[Payment, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.codec = RecordCodec(_SCHEMA)
        self.all_views = self.project.views
        self.producer = Producer(
            {"bootstrap.servers": self.kafka, "partitioner": "murmur2_random", "linger.ms": 5}
        )

    @property
    def topic(self) -> str:
        return self.topics.events("payments")

    def encode(self, payment: Payment) -> bytes:
        record = {
            name: getattr(payment, name)
            for name in ("event_id", "customer", "merchant", "paid_at", "amount", "kind")
        }
        return frame(self.schema_id, self.codec.encode(record))

    def publish(self, events: Sequence[Payment]) -> None:
        """Publish payments; they count for ``expected``."""
        for payment in events:
            self.producer.produce(self.topic, value=self.encode(payment), key=payment.customer)
            self.published.append((payment, partition_of(payment.customer, PARTITIONS)))
        assert self.producer.flush(20) == 0

    def publish_raw(
        self, value: bytes | None, *, key: str = "c1", headers: Any = None, at_ms: int = 0
    ) -> None:
        """Publish something that is no good event."""
        self.producer.produce(self.topic, value=value, key=key, headers=headers, timestamp=at_ms)
        assert self.producer.flush(20) == 0

    def ends(self) -> dict[int, int]:
        """Return each partition's end."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": "ends"})
        try:
            return {
                number: consumer.get_watermark_offsets(TopicPartition(self.topic, number), timeout=10)[1]
                for number in range(PARTITIONS)
            }
        finally:
            consumer.close()

    def owner(self, number: int) -> tuple[int, int] | None:
        """Return epoch and next offset of a partition."""
        value = self.client.get(owner_key(self.topics.prefix, "payments", number))
        if value is None:
            return None
        epoch, offset = value.split(b"|")
        return int(epoch), int(offset)

    def declare(self, *views: FeatureView) -> None:
        """Let the project have these views from the next store on."""
        self.project = replace(
            self.project,
            views={view.name: view for view in views},
            entities={view.entity.name: view.entity for view in views},
        )

    def filled(self) -> bool:
        """Tell whether the store has applied everything, and every declared view is complete everywhere."""
        if not self.caught_up():
            return False
        standings = read_standings(
            self.client.mget,
            prefix=self.topics.prefix,
            project=self.project,
            partitions={"payments": PARTITIONS},
        )
        return all(view.standing is Standing.COMPLETE for one in standings for view in one.views)

    def caught_up(self) -> bool:
        """Tell whether the store has applied everything."""
        owners = {number: self.owner(number) for number in range(PARTITIONS)}
        ends = self.ends()
        return all(owner is not None and owner[1] == ends[number] for number, owner in owners.items())

    def assemble(
        self,
        *,
        instance: str = "store-0",
        max_batch: int = 10_000,
        minimum: int = 200,
        past_batch: int = 10_000,
        backfill_share: float = 0.3,
    ) -> "Assembly":
        """Return a store of this world; backfills read so many records at a time."""
        settings = {"bootstrap.servers": self.kafka}
        consumer = PartitionedConsumer(
            settings,
            [self.topic],
            group=f"{self.topics.prefix}.store",
            instance=instance,
            max_batch=max_batch,
        )
        store = FencedStore(self.redis_url, prefix=self.topics.prefix, clock=SystemClock())
        feed = Feed(
            event_type="payments", partitions=PARTITIONS, decoder=BatchDecoder(_SCHEMA, self.registry.schema)
        )
        pipeline = FeatureStorePipeline(
            self.project,
            {self.topic: feed},
            store,
            DeadLetterTopic(settings, self.topics.dead_letters),
            prefix=self.topics.prefix,
            instance=instance,
            ceiling=DeadLetterCeiling(minimum=minimum),
            log=consumer,
            past=PastEvents(
                settings,
                consumer.oldest,
                schemas={self.topic: _SCHEMA},
                archive=self.archive,
                max_batch=past_batch,
            ),
            max_entities=1_000,
            backfill_share=backfill_share,
        )
        return Assembly(consumer=consumer, pipeline=pipeline, store=store)

    def run(self, *, until: Callable[[], bool] | None = None, seconds: float = 60, **options: Any) -> None:
        """Run a store until everything is applied (or ``until``); whatever it raises comes out."""
        self.assemble(**options).run(until=until or self.caught_up, seconds=seconds)

    def stored(self) -> dict[bytes, bytes]:
        """Return everything in Redis but what has times in it: the owner keys, and how long builds took."""
        keys = list(self.client.scan_iter(f"dl:{{{self.topics.prefix}.*", count=5_000))
        kept = sorted(key for key in keys if not key.endswith((b":owner", b":builds")))
        return dict(zip(kept, self.client.mget(kept), strict=True)) if kept else {}

    def blobs(self) -> dict[bytes, bytes]:
        """Return the views' blobs in Redis."""
        return {key: value for key, value in self.stored().items() if b"@1:" in key}

    def expected(self) -> dict[bytes, bytes]:
        """Return the blobs that applying each published payment once, one at a time, leaves."""
        blobs: dict[bytes, Any] = {}
        seen: set[tuple[str, int]] = set()
        for payment, partition in self.published:
            if (payment.event_id, partition) in seen:
                continue
            seen.add((payment.event_id, partition))
            for view in VIEWS:
                parts = [getattr(payment, name) for name in view.source.entity_fields]
                entity = None if None in parts else join_key(parts) if len(parts) > 1 else parts[0]
                if entity is None or (view is LARGE and (payment.amount is None or payment.amount <= 20)):
                    continue
                layout = ViewLayout.of(view)
                key = blob_key(self.topics.prefix, "payments", partition, view.ref, entity).encode()
                state = blobs.setdefault(key, layout.empty(1))
                amount = np.nan if payment.amount is None else payment.amount
                row, at = np.zeros(1, np.int64), np.array([payment.paid_at])
                inputs = {
                    "amount": np.array([amount]),
                    'amount where merchant = "m1"': np.array(
                        [amount if payment.merchant == "m1" else np.nan]
                    ),
                }
                apply_events(layout, state, row, at, inputs)
        return {key: state.tobytes() for key, state in blobs.items()}

    def dead_letters(self) -> list[Message]:
        """Return everything in the dead-letter topic."""
        consumer = Consumer(
            {"bootstrap.servers": self.kafka, "group.id": "letters", "isolation.level": "read_committed"}
        )
        try:
            where = TopicPartition(self.topics.dead_letters, 0, 0)
            end = consumer.get_watermark_offsets(where, timeout=10)[1]
            consumer.assign([where])
            found: list[Message] = []
            until = time.monotonic() + 20
            while time.monotonic() < until and (not found or (found[-1].offset() or 0) + 1 < end) and end:
                found += [one for one in consumer.consume(1_000, 0.2) if one.error() is None]
            return found
        finally:
            consumer.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """A store that is ready to run."""

    consumer: PartitionedConsumer
    pipeline: FeatureStorePipeline
    store: FencedStore

    def run(self, *, until: Callable[[], bool], seconds: float = 60) -> None:
        """Run until the condition holds."""
        started = time.monotonic()
        checked = [0.0]

        def done() -> bool:
            now = time.monotonic()
            assert now - started < seconds, "the store did not get there in time"
            if now - checked[0] < 0.05:
                return False
            checked[0] = now
            return until()

        try:
            run_pipeline(
                self.consumer,
                self.pipeline,
                stop=threading.Event(),
                health=Health(),
                until=done,
                between=self.pipeline.fill_views,
            )
        finally:
            self.pipeline.close()
            self.store.close()


@pytest.fixture
def world(kafka: str, registry_url: str, redis_url: str, unique: str) -> Iterator[World]:
    project = _project(f"fs{unique}")
    topics = Topics(project.name)
    admin = AdminClient({"bootstrap.servers": kafka})
    wanted = [NewTopic(topics.events("payments"), PARTITIONS, 1), NewTopic(topics.dead_letters, 1, 1)]
    for future in admin.create_topics(wanted).values():
        future.result(20)
    registry = SchemaRegistry(registry_url)
    schema_id = registry.register(topics.subject(topics.events("payments")), _SCHEMA)
    client = redis.Redis.from_url(redis_url)
    yield World(
        kafka=kafka,
        redis_url=redis_url,
        registry=registry,
        project=project,
        topics=topics,
        schema_id=schema_id,
        client=client,
    )
    registry.close()
    for key in client.scan_iter(f"dl:{{{project.name}.*", count=5_000):
        client.unlink(key)
    client.close()
    for future in admin.delete_topics([topic.topic for topic in wanted]).values():
        future.result(20)


def _project(name: str) -> Project:
    kind = EventType(
        name="payments",
        schema=_SCHEMA,
        schema_path=Path("payment.avsc"),
        key="customer",
        event_time="paid_at",
    )
    views: Mapping[str, FeatureView] = {view.name: view for view in VIEWS}
    return Project(
        name=name,
        owner="tests",
        description="",
        folder=Path(),
        event_types={"payments": kind},
        entities={view.entity.name: view.entity for view in VIEWS},
        views=views,
        models={},
        future_skew_us=300_000_000,
        max_jump_us=None,
    )
