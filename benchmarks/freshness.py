"""Event to readable feature, beside a raw produce-to-consume round trip."""

import time

import redis
from confluent_kafka import Producer

from benchmarks import events, peers
from benchmarks.comparison import Comparison
from benchmarks.data_plane import Bench
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.wire import frame
from driftline.features.keys import owner_key

EVENTS = 400
PACE_SECONDS = 0.005


def comparisons(bench: Bench) -> list[Comparison]:
    """Return the line."""
    values: list[bytes] = []
    store: list[str] = []

    def encoded() -> list[bytes]:
        if not values:
            schema = dict(bench.project.event_types["readings"].schema)
            with SchemaRegistry(bench.environment["SCHEMA_REGISTRY_URL"]) as registry:
                schema_id = registry.schema_id("bench.readings-value", schema)
            codec = RecordCodec(schema)
            later = events.START_US + bench.rows * events.SPACING_US
            for number, event in enumerate(events.readings(EVENTS, seed=9)):
                values.append(frame(schema_id, codec.encode({**event, "read_at": later + number})))
        return values

    def ours() -> float:
        if not store:
            store.append(bench.service("feature_store"))
        return peers.percentile(event_to_feature(bench, encoded()), 0.99) * 1e3

    def theirs() -> float:
        waits = peers.produce_to_consume(bench.bootstrap, "round-trip", encoded()[0], EVENTS, PACE_SECONDS)
        return peers.percentile(waits, 0.99) * 1e3

    return [
        Comparison(
            name="event to readable feature, 99th percentile / produce to consume",
            unit="ms",
            ours=ours,
            theirs=theirs,
            better="lower",
            aim=3.0,
            note="one event at a time, from produce() until the store's offset covers it",
        )
    ]


def event_to_feature(bench: Bench, values: list[bytes]) -> list[float]:
    """Seconds from produce() until the store has applied the event, one by one at a pace."""
    client = redis.Redis.from_url(bench.environment["REDIS_URL"])
    producer = Producer({"bootstrap.servers": bench.bootstrap, "linger.ms": 0, "acks": "all"})
    key = owner_key("bench", "readings", 0)
    topic = bench.topics.events("readings")
    waits = []
    _settle(client, key)
    for value in values:
        before = _offset(client, key)
        begun = time.perf_counter()
        producer.produce(topic, value, b"sensor", partition=0)
        producer.poll(0)
        while _offset(client, key) <= before:
            time.sleep(0.0002)
        waits.append(time.perf_counter() - begun)
        time.sleep(PACE_SECONDS)
    producer.flush()
    return waits


def _offset(client: "redis.Redis", key: str) -> int:
    owner = client.get(key)
    return int(owner.split(b"|")[1]) if isinstance(owner, bytes) else 0


def _settle(client: "redis.Redis", key: str) -> None:
    """Wait until the store stands still: it may still be reading what was loaded."""
    seen = -1
    while seen != (seen := _offset(client, key)) or seen <= 0:
        time.sleep(1.0)
