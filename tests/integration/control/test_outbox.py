"""What goes out is on the broker when the call returns, and a step of a table is there whole or not at all."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.control.outbox import KafkaOutbox
from driftline.control.partition_reader import PartitionReader
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.streaming.partitions import Partition


@pytest.fixture
def partition(kafka: str, unique: str) -> Iterator[Partition]:
    admin = AdminClient({"bootstrap.servers": kafka})
    name = f"outbox{unique}"
    for future in admin.create_topics([NewTopic(name, 1, 1)]).values():
        future.result(20)
    yield Partition(name, 0)
    for future in admin.delete_topics([name]).values():
        future.result(20)


@pytest.fixture
def reader(kafka: str, unique: str) -> Iterator[PartitionReader]:
    found = PartitionReader({"bootstrap.servers": kafka}, group=f"outbox{unique}")
    yield found
    found.close()


def with_outbox(kafka: str, use: Callable[[KafkaOutbox], Awaitable[None]]) -> None:
    async def run() -> None:
        outbox = KafkaOutbox(kafka, {}, client="test")
        await outbox.start()
        try:
            await use(outbox)
        finally:
            await outbox.stop()

    asyncio.run(run())


def test_each_call_returns_after_the_acknowledgement(
    kafka: str, partition: Partition, reader: PartitionReader
) -> None:
    ends = []

    async def use(outbox: KafkaOutbox) -> None:
        await outbox.send(partition.topic, key=b"a", value=b"1", headers=[("h", b"x")])
        ends.append(reader.end(partition))
        for size in (1, 5, 3):
            await outbox.append(partition.topic, 0, [(b"%d" % number, None) for number in range(size)])
            ends.append(reader.end(partition))

    with_outbox(kafka, use)
    assert ends == [1, 2, 7, 10]
    first = next(reader.read_all(partition))
    assert (first.key(), first.value(), first.headers()) == (b"a", b"1", [("h", b"x")])


def test_a_step_that_does_not_fit_leaves_nothing(
    kafka: str, partition: Partition, reader: PartitionReader
) -> None:
    async def use(outbox: KafkaOutbox) -> None:
        large = (b"large", b"x" * 1_100_000)
        for step in ([(b"small", b"1"), large], [large], [(b"%d" % n, b"x" * 90_000) for n in range(12)]):
            with pytest.raises(ConfigurationError, match="is the limit"):
                await outbox.append(partition.topic, 0, step)

    with_outbox(kafka, use)
    assert reader.end(partition) == 0


def test_what_the_broker_refuses_is_no_success(kafka: str, partition: Partition) -> None:
    async def use(outbox: KafkaOutbox) -> None:
        with pytest.raises(UnavailableError, match="did not take"):
            await outbox.send(partition.topic, key=None, value=b"x" * 1_100_000)

    with_outbox(kafka, use)


def test_a_silent_broker_is_unavailable() -> None:
    async def run() -> None:
        outbox = KafkaOutbox("127.0.0.1:1", {}, client="test")
        with pytest.raises(UnavailableError):
            await outbox.start()
        await outbox.stop()

    asyncio.run(run())


def test_the_reader_sees_what_readers_see(kafka: str, partition: Partition, reader: PartitionReader) -> None:
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": partition.topic})
    producer.init_transactions(20)
    for aborted in (False, True, False):
        producer.begin_transaction()
        for _ in range(2):
            producer.produce(partition.topic, value=b"x", partition=0)
        assert producer.flush(20) == 0  # an abort drops what is not sent yet
        producer.abort_transaction(20) if aborted else producer.commit_transaction(20)
    # 0 1 marker, 3 4 aborted, marker, 6 7 marker
    found = [reader.first_visible(partition, offset) for offset in (None, 0, 1, 2, 3, 5, 6, 7, 8)]
    assert found == [0, 0, 1, 6, 6, 6, 6, 7, None]
    assert reader.end(partition) == 9
    assert reader.committed(partition) is None
