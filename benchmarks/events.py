"""The events that the benchmarks read: 4,000 sensors, so that a batch of 10,000 touches nearly all of them."""

import io
import uuid
from collections.abc import Iterator
from typing import Any

import fastavro
import numpy as np
from confluent_kafka import Producer

SENSORS = 4_000
START_US = 1_700_000_000_000_000
SPACING_US = 20_000  # 50 events a second of event time, as a plausible feed


def readings(rows: int, *, seed: int = 7) -> Iterator[dict[str, Any]]:
    """Yield events in event-time order; one in a hundred comes up to ten minutes late."""
    rng = np.random.default_rng(seed)
    sensors = rng.integers(0, SENSORS, rows)
    values = rng.normal(20, 5, rows)
    delays = np.where(rng.random(rows) < 0.01, rng.integers(0, 600_000_000, rows), 0)
    for row in range(rows):
        yield {
            "event_id": str(uuid.UUID(int=(row << 80) | int(sensors[row]), version=4)),
            "sensor": f"sensor-{sensors[row]:05d}",
            "read_at": START_US + row * SPACING_US - int(delays[row]),
            "value": float(values[row]),
            "received_at": START_US + row * SPACING_US,
            "late": bool(delays[row]),
            "unit": "CELSIUS",
            "battery": 0.5,
            "firmware": "4.1.7",
            "tags": {"site": "north", "floor": "3"},
        }


def load(bootstrap: str, topic: str, rows: int, schema: dict[str, Any], schema_id: int) -> None:
    """Produce the events to partition 0 of a topic, framed."""
    parsed = fastavro.parse_schema(schema)
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 2_000_000}
    )
    header = b"\0" + schema_id.to_bytes(4, "big")
    for row, event in enumerate(readings(rows)):
        body = io.BytesIO()
        fastavro.schemaless_writer(body, parsed, event)
        producer.produce(topic, header + body.getvalue(), event["sensor"].encode(), partition=0)
        if row % 10_000 == 0:
            producer.poll(0)
    producer.flush()
