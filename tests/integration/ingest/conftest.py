"""A small project, its topics and schemas on the real broker and registry, and ingest in a thread."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from driftline.contracts.admin import create_topics
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.project import Project, load_project
from driftline.runtime.health import Health
from driftline.runtime.http import BackgroundServer
from services.ingest.assembly import build_app
from services.ingest.settings import IngestSettings

_SCHEMA = {
    "type": "record",
    "name": "Payment",
    "namespace": "shop",
    "doc": "A customer paid.",
    "fields": [
        {"name": "event_id", "type": "string", "doc": "UUID of the payment."},
        {"name": "paid_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "doc": "When."},
        {"name": "customer", "type": "string", "doc": "Who.", "example": "ann"},
        {"name": "amount", "type": "double", "doc": "How much."},
        {"name": "lines", "type": ["null", "int"], "default": None, "doc": "Lines of the bill."},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": [], "doc": "Any."},
        {
            "name": "kind",
            "type": {"type": "enum", "name": "Kind", "symbols": ["CARD", "CASH"]},
            "doc": "How.",
        },
    ],
}
_YAML = """
name: shop
owner: test@example.org
features: features.py
events:
  payments: {schema: payments.avsc, key: customer, event_time: paid_at, partitions: 2}
"""


@dataclass(frozen=True, kw_only=True)
class Shop:
    """The project and where it lives."""

    project: Project
    topics: Topics
    settings: IngestSettings


@pytest.fixture
def shop(tmp_path: Path, kafka: str, registry_url: str, unique: str) -> Iterator[Shop]:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "driftline.yaml").write_text(_YAML)
    (folder / "payments.avsc").write_text(json.dumps(_SCHEMA))
    (folder / "features.py").write_text("")
    project = load_project(folder)
    settings = IngestSettings(
        kafka_bootstrap_servers=kafka,
        schema_registry_url=registry_url,
        project=folder,
        environment=unique,
        state=tmp_path / "state",
    )
    topics = settings.topics(project)
    create_topics(settings.kafka_config(), project, topics)
    with SchemaRegistry(registry_url) as registry:
        registry.register_project(project, topics)
    yield Shop(project=project, topics=topics, settings=settings)
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.delete_topics(list(topics.all_of(project))).values():
        future.result(20)


@pytest.fixture
def ingest(shop: Shop) -> Iterator[httpx.Client]:
    health = Health("ingest", "ingest-0")
    server = BackgroundServer(build_app(shop.settings, health))
    port = server.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        wait_until_ready(client)
        yield client
    server.stop()


def wait_until_ready(client: httpx.Client, *, ready: bool = True, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (client.get("/readyz").status_code == 200) is ready:
            return
        time.sleep(0.05)
    raise AssertionError(client.get("/readyz").text)


def read_all(bootstrap: str, topic: str, partitions: int = 2) -> list[tuple[bytes | None, bytes]]:
    """Return the key and value of every record that a topic holds now."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False, "log_level": 2}
    )
    ends = {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]
        for number in range(partitions)
    }
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found: list[tuple[bytes | None, bytes]] = []
    while len(found) < sum(ends.values()):
        for message in consumer.consume(1000, 1.0):
            assert message.error() is None
            found.append((message.key(), message.value() or b""))  # type: ignore[arg-type]
    consumer.close()
    return found
