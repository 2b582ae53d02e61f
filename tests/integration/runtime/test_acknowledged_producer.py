import asyncio
import time
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.features.keys import partition_of
from driftline.runtime.acknowledged_producer import AcknowledgedProducer, Acknowledgement, Sending
from driftline.runtime.errors import (
    BackpressureError,
    BadMessageError,
    DriftlineError,
    UnavailableError,
)
from driftline.runtime.health import Health
from tests.integration.ingest.conftest import read_all


@pytest.fixture
def topic(kafka: str, unique: str) -> Iterator[str]:
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.create_topics([NewTopic(unique, 2, 1)]).values():
        future.result(20)
    yield unique
    for future in admin.delete_topics([unique]).values():
        future.result(20)


def test_acknowledged_means_written(kafka: str, topic: str) -> None:
    async def run() -> None:
        producer = AcknowledgedProducer({"bootstrap.servers": kafka})
        keys = [f"k{number}" for number in range(3_000)]
        written = await asyncio.gather(*(producer.send(topic, key, b"v", [("h", b"1")]) for key in keys))
        assert [one.partition for one in written] == [partition_of(key, 2) for key in keys]
        assert len({(one.partition, one.offset) for one in written}) == 3_000
        assert producer.in_flight == 0
        assert producer.submit(topic, "from a thread", b"v").result(10).topic == topic
        assert producer.close() == 0
        with pytest.raises(UnavailableError, match="closed"):
            producer.send(topic, "k", b"v")

    asyncio.run(run())
    assert len(read_all(kafka, topic)) == 3_001


def test_in_flight_is_bounded(kafka: str, topic: str) -> None:
    async def run() -> None:
        producer = AcknowledgedProducer({"bootstrap.servers": kafka}, max_in_flight=10, linger_ms=300)
        sent = [producer.send(topic, "k", b"v") for _ in range(10)]
        with pytest.raises(BackpressureError):
            producer.send(topic, "k", b"v")
        with pytest.raises(BackpressureError):
            producer.check_room(1)
        await asyncio.gather(*sent)
        producer.check_room(10)
        await producer.send(topic, "k", b"v")
        producer.close()

    asyncio.run(run())


def test_what_is_sent_together_is_told_each_for_itself(kafka: str, topic: str, unique: str) -> None:
    told: list[tuple[int, Acknowledgement | DriftlineError]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        producer = AcknowledgedProducer({"bootstrap.servers": kafka}, max_in_flight=100)

        def send(to: str, count: int, large: int = -1) -> None:
            values = [b"x" * 3_000_000 if number == large else b"v" for number in range(count)]
            messages = [
                Sending(
                    loop, f"k{number}", value, lambda outcome, number=number: told.append((number, outcome))
                )
                for number, value in enumerate(values)
            ]
            told.clear()
            producer.send_together(to, messages)

        async def all_told(count: int) -> dict[int, Acknowledgement | DriftlineError]:
            while len(told) < count:
                await asyncio.sleep(0.002)
            assert producer.in_flight == 0
            return dict(told)

        send(topic, 60, large=7)
        found = await all_told(60)
        assert isinstance(too_large := found.pop(7), BadMessageError)
        assert "larger" in str(too_large)
        for number, outcome in found.items():
            assert isinstance(outcome, Acknowledgement)
            assert outcome.partition == partition_of(f"k{number}", 2)
        send(topic, 130)
        found = await all_told(130)
        assert {type(found[number]) for number in range(100)} == {Acknowledgement}
        assert {type(found[number]) for number in range(100, 130)} == {BackpressureError}
        send(unique + ".missing", 2)
        assert {type(one) for one in (await all_told(2)).values()} == {UnavailableError}
        await asyncio.to_thread(producer.close)
        send(topic, 2)
        assert {type(one) for one in (await all_told(2)).values()} == {UnavailableError}

    asyncio.run(run())
    assert len(read_all(kafka, topic)) == 159


def test_close_writes_what_was_sent(kafka: str, topic: str) -> None:
    async def run() -> None:
        producer = AcknowledgedProducer({"bootstrap.servers": kafka}, linger_ms=100)
        sent = [producer.send(topic, "k", b"v") for _ in range(100)]
        assert await asyncio.to_thread(producer.close) == 0
        assert len(await asyncio.gather(*sent)) == 100

    asyncio.run(run())


def test_what_cannot_be_written_fails_and_says_why(kafka: str, topic: str, unique: str) -> None:
    async def run() -> None:
        producer = AcknowledgedProducer({"bootstrap.servers": kafka}, delivery_seconds=8)
        with pytest.raises(BadMessageError, match="larger"):
            await producer.send(topic, "k", b"x" * 3_000_000)
        with pytest.raises(UnavailableError, match="does not exist"):
            await producer.send(unique + ".missing", "k", b"v")
        given_up = producer.send(topic, "k", b"v")
        given_up.cancel()  # its acknowledgement finds nobody, and nothing breaks
        assert (await producer.send(topic, "k", b"v")).offset >= 0
        producer.close()

    asyncio.run(run())


def test_a_broker_that_is_not_there(unique: str) -> None:
    health = Health()

    async def run() -> None:
        producer = AcknowledgedProducer(
            {"bootstrap.servers": "127.0.0.1:9"}, delivery_seconds=1.0, health=health
        )
        before = time.monotonic()
        with pytest.raises(UnavailableError, match="did not acknowledge"):
            await producer.send(unique, "k", b"v")
        assert time.monotonic() - before < 3
        assert not health.ready
        assert health.alive
        left = producer.send(unique, "k", b"v")
        assert await asyncio.to_thread(producer.close, 0.1) == 1
        with pytest.raises(UnavailableError):
            await left

    asyncio.run(run())


def test_health_follows_the_broker(kafka: str) -> None:
    health = Health()
    producer = AcknowledgedProducer({"bootstrap.servers": kafka}, health=health)
    until = time.monotonic() + 10
    while not health.ready and time.monotonic() < until:
        time.sleep(0.02)
    assert health.ready
    producer.close()
