"""Read everything back the way a careful auditor would: committed records only, and the store's own bytes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import redis
from confluent_kafka import Consumer, Message, TopicPartition

from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import split
from driftline.features import FeatureView
from driftline.features.keys import blob_key
from driftline.features.layout import ViewLayout
from driftline.features.update import apply_events


def end_offsets(bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "audit"})
    ends = {
        p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=20)[1] for p in range(partitions)
    }
    consumer.close()
    return ends


def committed(bootstrap: str, topic: str, partitions: int) -> list[Message]:
    """Every committed record of a topic, in partition order."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "audit",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    messages, ended = [], set()
    while len(ended) < partitions:
        for message in consumer.consume(10_000, 1.0):
            if message.error() is not None:
                ended.add(message.partition())
            else:
                messages.append(message)
    consumer.close()
    return messages


def record_ends(bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    """The offset after the last committed record: a transaction's marker may follow it, which nobody consumes."""
    ends = dict.fromkeys(range(partitions), 0)
    for message in committed(bootstrap, topic, partitions):
        ends[message.partition() or 0] = (message.offset() or 0) + 1
    return ends


def replayed(view: FeatureView, messages: list[Message], codec: RecordCodec) -> dict[tuple[int, str], bytes]:
    """The blobs that a sequential replay of the topic gives: (partition, entity) -> bytes."""
    layout = ViewLayout.of(view)
    blobs: dict[tuple[int, str], Any] = {}
    seen: set[str] = set()
    for message in messages:
        event = codec.decode(split(message.value())[1])
        if event["event_id"] in seen:
            continue
        seen.add(event["event_id"])
        key = (message.partition() or 0, event[view.source.entity_field])
        state = blobs.setdefault(key, layout.empty(1))
        time_us = np.array([int(event[view.source.event_time].timestamp() * 1_000_000)], dtype=np.int64)
        inputs = {
            name: np.array([np.nan if event[name] is None else float(event[name])]) for name in layout.inputs
        }
        apply_events(layout, state, np.zeros(1, dtype=np.int64), time_us, inputs)
    return {key: state[0].tobytes() for key, state in blobs.items()}


def stored(
    client: "redis.Redis", prefix: str, view: FeatureView, keys: list[tuple[int, str]]
) -> dict[tuple[int, str], bytes | None]:
    names = [
        blob_key(prefix, view.source.event_type, partition, view.ref, entity) for partition, entity in keys
    ]
    return dict(zip(keys, client.mget(names), strict=True))


def differences(
    expected: Mapping[tuple[int, str], bytes], found: Mapping[tuple[int, str], bytes | None]
) -> list[tuple[int, str]]:
    return [key for key, value in expected.items() if found[key] != value]
