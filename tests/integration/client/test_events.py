from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from driftline.client import Client, EventPublisher, InvalidRequestError, NotFoundError
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import split
from driftline.features.keys import partition_of
from driftline.runtime.errors import ConfigurationError
from tests.integration.ingest.conftest import Shop, read_all


def payment(**changes: Any) -> dict[str, Any]:
    event = {
        "paid_at": datetime(2013, 4, 1, 12, 30, tzinfo=UTC),
        "customer": "ann",
        "amount": 12.5,
        "kind": "CARD",
    }
    return {**event, **changes}


@pytest.fixture
def client(ingest: httpx.Client) -> Iterator[Client]:
    with Client(ingest_url=str(ingest.base_url)) as client:
        yield client


def test_published_events_are_on_the_topic(client: Client, shop: Shop) -> None:
    ids = [str(uuid4()) for _ in range(1_500)]
    result = client.publish("payments", [payment(event_id=event_id) for event_id in ids])
    assert result.accepted == 1_500
    assert [item.event_id for item in result.results] == ids
    codec = RecordCodec(shop.project.event_types["payments"].schema)
    found = read_all(shop.settings.kafka_bootstrap_servers, shop.topics.events("payments"))
    assert [codec.decode(split(value)[1])["event_id"] for _, value in found] == ids


def test_rejected_events(client: Client) -> None:
    mixed = client.publish("payments", [payment(), payment(amount="x")])
    assert mixed.accepted == 1
    assert [item.error for item in mixed.rejected if item.error] == [
        "amount: a finite number is wanted, got 'x'"
    ]
    with pytest.raises(InvalidRequestError) as caught:
        client.publish("payments", payment(amount="x"))
    assert caught.value.results[0].status == "rejected"
    with pytest.raises(NotFoundError, match="payments"):
        client.publish("refunds", payment())


def test_the_publisher_writes_what_ingest_would(client: Client, shop: Shop) -> None:
    event = payment(event_id=str(uuid4()), paid_at="2013-04-01T12:30:00Z")
    client.publish("payments", event)
    with EventPublisher(
        shop.project.name,
        "payments",
        key="customer",
        bootstrap=shop.settings.kafka_bootstrap_servers,
        registry=shop.settings.schema_registry_url,
        environment=shop.topics.prefix.split(".")[0],
    ) as publisher:
        result = publisher.publish([event, payment(), {**event, "amount": "x"}, {**event, "customer": "bob"}])
    assert [item.status for item in result.results] == ["accepted", "rejected", "rejected", "accepted"]
    assert result.results[3].partition == partition_of("bob", 2)
    found = read_all(shop.settings.kafka_bootstrap_servers, shop.topics.events("payments"))
    values = [value for key, value in found if key == b"ann"]
    assert len(values) == 2
    assert values[0] == values[1]


def test_the_publisher_says_what_is_missing(shop: Shop) -> None:
    where = {
        "bootstrap": shop.settings.kafka_bootstrap_servers,
        "registry": shop.settings.schema_registry_url,
        "environment": shop.topics.prefix.split(".")[0],
    }
    with pytest.raises(ConfigurationError, match="not in the registry"):
        EventPublisher(shop.project.name, "refunds", key="customer", **where)
    with pytest.raises(ConfigurationError, match="no field 'who'"):
        EventPublisher(shop.project.name, "payments", key="who", **where)
