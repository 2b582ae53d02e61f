"""What the consumer hands out, and what it must not."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.runtime import metrics
from driftline.runtime.errors import OffsetGapError, UnavailableError
from driftline.streaming.consumer import PartitionedConsumer
from driftline.streaming.partitions import Partition, PartitionBatch


@pytest.fixture
def topic(kafka: str, unique: str) -> Iterator[str]:
    admin = AdminClient({"bootstrap.servers": kafka})
    name = f"consumer{unique}"
    for future in admin.create_topics([NewTopic(name, 2, 1)]).values():
        future.result(20)
    yield name
    for future in admin.delete_topics([name]).values():
        future.result(20)


@pytest.fixture
def consumer(kafka: str, topic: str) -> Iterator[PartitionedConsumer]:
    member = PartitionedConsumer(
        {"bootstrap.servers": kafka}, [topic], group=topic, instance="a", max_batch=100
    )
    yield member
    member.close()


def publish(kafka: str, topic: str, numbers: range, *, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 5})
    for number in numbers:
        producer.produce(topic, value=b"%d" % number, partition=partition)
    assert producer.flush(20) == 0


def poll(consumer: PartitionedConsumer, *, seconds: float = 5) -> list[PartitionBatch]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if batches := consumer.poll(0.1):
            return batches
    return []


def join(consumer: PartitionedConsumer) -> None:
    until = time.monotonic() + 20
    while len(consumer.assigned) < 2 and time.monotonic() < until:
        assert consumer.poll(0.1) == []
    assert len(consumer.assigned) == 2


def test_nothing_is_fetched_before_the_sink_says_where(
    kafka: str, topic: str, consumer: PartitionedConsumer
) -> None:
    publish(kafka, topic, range(50))
    join(consumer)
    publish(kafka, topic, range(50, 60))
    assert poll(consumer, seconds=1) == []
    consumer.start(Partition(topic, 0), 45)
    batch = poll(consumer)[0]
    assert (batch.partition, batch.values[0]) == (Partition(topic, 0), b"45")
    assert consumer.started == {Partition(topic, 0): batch.next_offset}


def test_a_held_partition_comes_again_from_the_sinks_offset(
    kafka: str, topic: str, consumer: PartitionedConsumer
) -> None:
    publish(kafka, topic, range(1_000))
    join(consumer)
    partition = Partition(topic, 0)
    consumer.start(partition, None)
    assert poll(consumer)[0].values[0] == b"0"
    consumer.hold([partition], seconds=0.3)
    assert partition not in consumer.due()
    assert poll(consumer, seconds=0.5) == []
    assert partition in consumer.due()
    consumer.start(partition, 7)
    assert poll(consumer)[0].values[0] == b"7"


def test_what_was_fetched_of_a_partition_revoked_in_the_meantime_is_dropped(
    kafka: str, topic: str, consumer: PartitionedConsumer
) -> None:
    publish(kafka, topic, range(20))
    publish(kafka, topic, range(20), partition=1)
    join(consumer)
    for number in range(2):
        consumer.start(Partition(topic, number), 0)
    real = consumer._consumer

    class RevokesInTheMiddle:
        """A consumer whose second call of ``consume`` runs the revocation of partition 0."""

        def __init__(self) -> None:
            self.seen: set[int] = set()

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def consume(self, count: int, timeout: float) -> Any:
            messages = real.consume(count, timeout)
            while len({message.partition() for message in messages} | self.seen) < 2 and count > 1:
                messages += real.consume(100, 0.1)
            self.seen |= {message.partition() for message in messages}
            if count > 1:
                consumer._on_revoke(real, [TopicPartition(topic, 0)])
            return messages

    consumer._consumer = RevokesInTheMiddle()  # type: ignore[assignment]
    batches = poll(consumer)
    consumer._consumer = real
    assert [batch.partition for batch in batches] == [Partition(topic, 1)]
    assert consumer.take_revoked() == {Partition(topic, 0)}
    assert Partition(topic, 0) not in consumer.started


def test_records_deleted_while_running_are_reported(
    kafka: str, topic: str, consumer: PartitionedConsumer
) -> None:
    publish(kafka, topic, range(10))
    join(consumer)
    partition = Partition(topic, 0)
    consumer.start(partition, 0)
    while consumer.started[partition] < 10:
        poll(consumer)
    where = [TopicPartition(topic, 0)]
    consumer._consumer.pause(where)
    publish(kafka, topic, range(10, 100))
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.delete_records([TopicPartition(topic, 0, 80)]).values():
        future.result(10)
    consumer._consumer.resume(where)
    with pytest.raises(OffsetGapError, match="offset 10 is no longer in the topic"):
        poll(consumer, seconds=20)


def test_a_transactions_marker_is_not_behind(kafka: str, topic: str, consumer: PartitionedConsumer) -> None:
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, value=b"1", partition=0)
    producer.commit_transaction(20)
    join(consumer)
    consumer.start(Partition(topic, 0), None)
    assert [batch.next_offset for batch in poll(consumer)] == [1]
    lag = metrics.LAG.labels(topic, "0")
    until = time.monotonic() + 10
    while time.monotonic() < until:
        consumer.poll(0.1)
        consumer.measure_lag()
        if lag._value.get() == 0:
            break
    assert lag._value.get() == 0
    publish(kafka, topic, range(3))
    assert sum(len(batch.messages) for batch in poll(consumer)) > 0


def test_a_silent_broker_is_unavailable_not_a_gap(topic: str) -> None:
    lonely = PartitionedConsumer({"bootstrap.servers": "127.0.0.1:1"}, [topic], group=topic, instance="b")
    try:
        with pytest.raises(UnavailableError):
            lonely.oldest(Partition(topic, 0))
    finally:
        lonely.close()
