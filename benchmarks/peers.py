"""What driftline is measured against: the simplest honest way to do the same job."""

import io
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import fastavro
from confluent_kafka import Consumer, Producer, TopicPartition

HEADER = 5  # magic byte and schema id


def consumer(bootstrap: str, group: str) -> Consumer:
    """Return a bare consumer of committed records, to be assigned by hand."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.message.max.bytes": 10_000_000,
            "queued.max.messages.kbytes": 262_144,
        }
    )


def consume_and_decode(bootstrap: str, topic: str, rows: int, schema: dict[str, Any]) -> float:
    """R: consume and decode record by record with fastavro. Rows a second, after the first batch."""
    parsed = fastavro.parse_schema(schema)
    reader = consumer(bootstrap, "bench-r")
    reader.assign([TopicPartition(topic, 0, 0)])
    seen, begun = 0, 0.0
    while seen < rows:
        messages = reader.consume(10_000, 1.0)
        if not begun and messages:
            begun = time.perf_counter()
            rows_before = len(messages)
        for message in messages:
            value = message.value()
            assert value is not None
            fastavro.schemaless_reader(io.BytesIO(value[HEADER:]), parsed)
        seen += len(messages)
    seconds = time.perf_counter() - begun
    reader.close()
    del rows_before
    return seen / seconds


def transactional_echo(bootstrap: str, source: str, target: str, rows: int, batch: int = 10_000) -> float:
    """Consume, produce the same bytes and commit, one transaction a batch. Rows a second."""
    reader = consumer(bootstrap, "bench-echo")
    reader.assign([TopicPartition(source, 0, 0)])
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": "bench-echo",
            "linger.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    producer.init_transactions()
    seen, begun = 0, 0.0
    while seen < rows:
        messages = reader.consume(batch, 1.0)
        if not messages:
            continue
        begun = begun or time.perf_counter()
        producer.begin_transaction()
        for message in messages:
            producer.produce(target, message.value(), message.key())
        last = messages[-1].offset()
        assert last is not None
        producer.send_offsets_to_transaction(
            [TopicPartition(source, 0, last + 1)], reader.consumer_group_metadata()
        )
        producer.commit_transaction()
        seen += len(messages)
    seconds = time.perf_counter() - begun
    reader.close()
    return seen / seconds


def produce_to_consume(bootstrap: str, topic: str, value: bytes, events: int, pace: float) -> list[float]:
    """Seconds from produce() to the same record in a bare consumer, one by one at a pace (seconds)."""
    reader = consumer(bootstrap, "bench-round-trip")
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "acks": "all"})
    low, high = reader.get_watermark_offsets(TopicPartition(topic, 0))
    del low
    reader.assign([TopicPartition(topic, 0, high)])
    reader.poll(0.5)
    waits = []
    for _ in range(events):
        begun = time.perf_counter()
        producer.produce(topic, value, partition=0)
        producer.poll(0)
        while True:
            message = reader.poll(1.0)
            if message is not None and message.error() is None:
                break
        waits.append(time.perf_counter() - begun)
        time.sleep(pace)
    producer.flush()
    reader.close()
    return waits


def acknowledgement_seconds(bootstrap: str, topic: str, size: int = 500, records: int = 500) -> float:
    """What a producer waits for the acknowledgement of one record at a time: the median, after as many unmeasured ones."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 0,
            "max.in.flight.requests.per.connection": 1,
            "socket.nagle.disable": True,
        }
    )
    value = random.Random(0).randbytes(size)
    told: list[Any] = []
    waits = []
    for sent in range(1, 2 * records + 1):
        begun = time.perf_counter()
        producer.produce(topic, value, on_delivery=lambda error, _: told.append(error))
        while len(told) < sent:
            producer.poll(1)
        waits.append(time.perf_counter() - begun)
    if any(told):
        raise RuntimeError(f"{topic}: {next(filter(None, told))}")
    return statistics.median(waits[records:])


def percentile(values: list[float], share: float) -> float:
    """The value below which a share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


Job = Callable[[], float]
