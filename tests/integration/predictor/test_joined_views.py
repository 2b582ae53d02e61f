"""A model's features come from a stream, a table, another view and another model's predictions: the whole way, for real."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from driftline.contracts.admin import create_topics
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.wire import frame
from driftline.features.point_in_time import as_of_join
from driftline.project import load_project
from driftline.runtime import metrics
from driftline.runtime.health import Health
from driftline.runtime.ids import new_id
from services.feature_store.assembly import run_feature_store
from services.feature_store.settings import FeatureStoreSettings
from services.predictor.settings import PredictorSettings
from tests.small_model import write_model

from .conftest import NOW_US, Running

CARDS = Path(__file__).parent / "cards"
MINUTE_US = 60_000_000


class Cards:
    """The project on the real servers, with a feature store and a predictor in this process."""

    def __init__(self, tmp_path: Path, servers: dict[str, str], environment: str) -> None:
        self.project = load_project(CARDS)
        for name in self.project.models:
            write_model(self.project, tmp_path / "models", model=name)
        shared: dict[str, Any] = {
            **servers,
            "project": CARDS,
            "environment": environment,
            "state": tmp_path / "state",
        }
        self.settings = PredictorSettings(**shared, models=tmp_path / "models", instance="predictor-0")
        self._store_settings = FeatureStoreSettings(**shared, instance="store-0")
        self.topics = self.settings.topics(self.project)
        create_topics(self.settings.kafka_config(), self.project, self.topics)
        self.registry = SchemaRegistry(servers["schema_registry_url"])
        self.ids = self.registry.register_project(self.project, self.topics)
        self.redis = redis.Redis.from_url(servers["redis_url"])
        self._producer = Producer({**self.settings.kafka_config(), "partitioner": "murmur2_random"})
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=run_feature_store,
            args=(self._store_settings, self.project),
            kwargs={"health": Health("feature_store", "store-0"), "stop": self._stop},
        )
        self._thread.start()
        self.predictor = Running(self.settings, self.project)
        self.predictor.wait_ready()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(60)
        self.predictor.stop()
        self.registry.close()
        self.redis.close()

    def publish(self, event_type: str, records: list[dict[str, Any]]) -> None:
        topic = self.topics.events(event_type)
        codec = RecordCodec(dict(self.project.event_types[event_type].schema))
        for record in records:
            self._producer.produce(topic, frame(self.ids[topic], codec.encode(record)), record["customer"])
        assert self._producer.flush(20) == 0

    def read(self, event_type: str) -> pa.Table:
        """Return all of a topic as the store reads it: as columns of the event type's schema."""
        topic, kind = self.topics.events(event_type), self.project.event_type(event_type)
        consumer = Consumer(
            {**self.settings.kafka_config(), "group.id": new_id(), "isolation.level": "read_committed"}
        )
        places = [TopicPartition(topic, number, 0) for number in range(2)]
        ends = [consumer.get_watermark_offsets(place, timeout=10)[1] for place in places]
        consumer.assign(places)
        values: list[bytes | None] = []
        until = time.monotonic() + 20
        while [one.offset for one in consumer.position(places)] != ends and time.monotonic() < until:
            values += [one.value() for one in consumer.consume(500, 0.2) if one.error() is None]
        consumer.close()
        decoded = BatchDecoder(dict(kind.schema), self.registry.schema).decode(values)
        assert not decoded.bad
        return pa.Table.from_batches([decoded.table], arrow_schema(dict(kind.schema)))

    def features(self, customer: str) -> dict[str, Any]:
        path = f"/v1/features/customer_now/{customer}"
        answer = self.predictor.http.get(path, params={"as_of": "2025-06-15T15:06:40Z"})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ask(self, model: str, amount: float) -> dict[str, Any]:
        """Ask about customer c1 as of the tests' now."""
        answer = self.post(model, "2025-06-15T15:06:40Z", amount)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def post(self, model: str, event_time: str, amount: float) -> httpx.Response:
        body = {"event_time": event_time, "entities": {"customer": "c1"}, "inputs": {"amount": amount}}
        return self.predictor.ask(model, **body)

    def blobs(self) -> dict[bytes, bytes]:
        keys = sorted(
            key for key in self.redis.scan_iter(f"dl:{{{self.topics.prefix}.*", count=5_000) if b"@1:" in key
        )
        return dict(zip(keys, self.redis.mget(keys), strict=True))


@pytest.fixture
def cards(tmp_path: Path, kafka: str, registry_url: str, redis_url: str, unique: str) -> Iterator[Cards]:
    servers = {"kafka_bootstrap_servers": kafka, "schema_registry_url": registry_url, "redis_url": redis_url}
    running = Cards(tmp_path, servers, unique)
    try:
        yield running
    finally:
        running.close()


def wait_for(seen: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)


def test_a_model_reads_a_table_another_view_and_another_models_scores(cards: Cards) -> None:
    assert NOW_US == 1_750_000_000_000_000  # which is 2025-06-15T15:06:40Z
    payments = [
        {
            "event_id": new_id(),
            "customer": f"c{number % 3}",
            "paid_at": NOW_US - number * 7 * MINUTE_US,
            "amount": 10.0 + number,
        }
        for number in range(60)
    ]
    rows = [
        {
            "event_id": new_id(),
            "customer": f"c{number % 3}",
            "changed_at": NOW_US - (900 - number) * 1_440 * MINUTE_US,
            "credit": 100.0 * number,
        }
        for number in range(1, 8)
    ]
    cards.publish("payments", payments)
    cards.publish("customers", rows)
    wait_for(lambda: cards.features("c2")["status"] == "fresh")
    scores = [cards.ask("fraud", float(number))["score"] for number in range(4)]
    cards.ask("limit", 1.0)  # not the fraud model's: it does not count

    def told() -> dict[str, Any]:
        return cards.features("c1")["values"]  # type: ignore[no-any-return]

    wait_for(
        lambda: (
            told()["asked"] == len(scores)
            and told()["count_1d"] == 20
            and told()["customers_last_credit"] == 700.0
        )
    )
    view = cards.project.views["customer_now"]
    events = {name: cards.read(name) for name in ("payments", "customers", "predictions")}
    assert len(events["predictions"]) == len(scores) + 1
    offline = as_of_join(view, events, ["c1"], np.array([NOW_US])).values[0].tolist()
    assert list(told().values()) == offline
    assert told()["fraud_score"] == max(scores)  # of equal times the larger
    answer = cards.ask("limit", 2.0)
    assert answer["features"]["customer_now"]["values"] == told()

    # A prediction about tomorrow is no event yet, and nobody's mistake either.
    before = metrics.EVENTS_LEFT_OUT.labels("predictions")._value.get()
    tomorrow = f"{np.datetime64(time.time_ns() + 20 * 3_600 * 10**9, 'ns').astype('datetime64[s]')}Z"
    assert cards.post("fraud", tomorrow, 1.0).status_code == 200
    wait_for(lambda: metrics.EVENTS_LEFT_OUT.labels("predictions")._value.get() == before + 1)
    consumer = Consumer({**cards.settings.kafka_config(), "group.id": new_id()})
    assert consumer.get_watermark_offsets(TopicPartition(cards.topics.dead_letters, 0), timeout=10)[1] == 0
    consumer.close()

    # The store is lost: the same bytes come back from the topics.
    stored = cards.blobs()
    assert {key.split(b":")[2] for key in stored} == {part.ref.encode() for part in (*view.stored,)}
    cards.redis.unlink(*cards.redis.keys(f"dl:{{{cards.topics.prefix}.*"))
    wait_for(lambda: cards.blobs() == stored)


def test_a_tables_topic_is_compacted(cards: Cards) -> None:
    admin = AdminClient(cards.settings.kafka_config())
    wanted = {
        name: ConfigResource(ResourceType.TOPIC, cards.topics.events(name))
        for name in ("payments", "customers")
    }
    found = {
        name: admin.describe_configs([resource])[resource].result(20)["cleanup.policy"].value
        for name, resource in wanted.items()
    }
    assert found == {"payments": "delete", "customers": "compact"}
