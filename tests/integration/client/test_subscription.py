"""Subscribing to a prediction log that a transactional producer writes."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.client import AsyncClient, Client, ServiceUnavailableError
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import Topics
from driftline.contracts.wire import frame

_TIME = {"type": "long", "logicalType": "timestamp-micros"}
_SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Prediction",
    "fields": [
        {"name": "request_id", "type": "string"},
        {"name": "model", "type": "string"},
        {"name": "model_version", "type": ["null", "string"]},
        {
            "name": "channel",
            "type": {"type": "enum", "name": "Channel", "symbols": ["HTTP", "TOPIC", "BATCH"]},
        },
        {
            "name": "status",
            "type": {"type": "enum", "name": "Status", "symbols": ["ANSWERED", "REFUSED", "FAILED"]},
        },
        {"name": "score", "type": ["null", "double"]},
        {"name": "decision", "type": ["null", "string"]},
        {"name": "error", "type": ["null", "string"]},
        {"name": "requested_at", "type": _TIME},
        {"name": "event_time", "type": _TIME},
        {"name": "predicted_at", "type": _TIME},
        {"name": "duration_us", "type": "long"},
        {"name": "caller", "type": ["null", "string"]},
        {"name": "feature_views", "type": {"type": "array", "items": "string"}},
        {"name": "origin", "type": ["null", "string"]},
        {"name": "v__count_1h", "type": ["null", "double"]},
    ],
}


@dataclass(frozen=True, kw_only=True)
class Log:
    """A prediction log to write to."""

    project: str
    servers: dict[str, Any]
    producer: Producer
    topic: str
    schema_id: int

    def write(self, *ids: str, commit: bool = True) -> None:
        codec = RecordCodec(_SCHEMA)
        self.producer.begin_transaction()
        for request_id in ids:
            record = codec.from_json(
                {
                    "request_id": request_id,
                    "model": "lateness",
                    "model_version": "1",
                    "channel": "TOPIC",
                    "status": "ANSWERED",
                    "score": 0.5,
                    "decision": "late",
                    "error": None,
                    "requested_at": 1,
                    "event_time": 2,
                    "predicted_at": 3,
                    "duration_us": 4,
                    "caller": None,
                    "feature_views": ["v@1"],
                    "origin": "JFK",
                    "v__count_1h": 3,
                }
            )
            self.producer.produce(self.topic, frame(self.schema_id, codec.encode(record)), request_id)
        if commit:
            self.producer.commit_transaction(10)
        else:
            self.producer.flush(10)
            self.producer.abort_transaction(10)


@pytest.fixture
def log(kafka: str, registry_url: str, unique: str) -> Iterator[Log]:
    topic = Topics(unique).predictions
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.create_topics([NewTopic(topic, 2, 1)]).values():
        future.result(20)
    with SchemaRegistry(registry_url) as registry:
        schema_id = registry.register(f"{topic}-value", _SCHEMA)
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": unique})
    producer.init_transactions(20)
    servers = {"project": unique, "bootstrap": kafka, "registry": registry_url, "idle_seconds": 4.0}
    yield Log(project=unique, servers=servers, producer=producer, topic=topic, schema_id=schema_id)
    for future in admin.delete_topics([topic]).values():
        future.result(20)


def test_only_finished_transactions_decoded(log: Log) -> None:
    log.write("a")
    log.write("aborted", commit=False)
    log.write("b")
    with Client() as client, client.subscribe(**log.servers, since="beginning") as predictions:
        found = list(predictions)
    assert sorted(item.request_id for item in found) == ["a", "b"]
    assert (found[0].model, found[0].status, found[0].score, found[0].feature_views) == (
        "lateness",
        "ANSWERED",
        0.5,
        ["v@1"],
    )
    assert found[0].values == {"origin": "JFK", "v__count_1h": 3.0}


def test_from_now_on(log: Log) -> None:
    log.write("before")
    with Client() as client, client.subscribe(**log.servers) as predictions:
        log.write("after")
        assert next(predictions).request_id == "after"


def test_a_group_goes_on_where_it_was(log: Log) -> None:
    written = [f"r{number}" for number in range(6)]
    log.write(*written)
    group = {"group": f"{log.project}-readers", "since": "beginning"}
    seen = []
    with Client() as client:
        with client.subscribe(**log.servers, **group) as predictions:
            seen += [next(predictions).request_id for _ in range(3)]
        with client.subscribe(**log.servers, **group) as predictions:
            seen += [item.request_id for item in predictions]
    assert seen[2] in seen[3:]  # the last one was not finished: nobody asked for the next
    assert sorted(set(seen)) == written
    assert len(seen) == 7


def test_async(log: Log) -> None:
    log.write("a", "b", "c")

    async def read() -> list[str]:
        async with AsyncClient() as client:
            subscription = await client.subscribe(**log.servers, since="beginning")
            async with subscription as predictions:
                return [item.request_id async for item in predictions]

    assert sorted(asyncio.run(read())) == ["a", "b", "c"]


def test_a_topic_that_is_not_there(log: Log) -> None:
    with Client() as client, pytest.raises(ServiceUnavailableError):
        client.subscribe(**{**log.servers, "project": log.project + "x"})
