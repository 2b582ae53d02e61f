"""Kafka to Kafka: outputs, dead letters and offsets become visible together, once."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from driftline.runtime.errors import BadMessageError, OffsetGapError, UnavailableError
from driftline.runtime.health import Health
from driftline.streaming import kafka_sink
from driftline.streaming.consumer import PartitionedConsumer
from driftline.streaming.dead_letters import read_origin
from driftline.streaming.kafka_sink import KafkaSink, Transaction
from driftline.streaming.loop import run_pipeline
from driftline.streaming.overlapped import Overlapped
from driftline.streaming.partitions import Partition, PartitionBatch

PARTITIONS = 3


class Crash(BaseException):
    """The process dies here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """The topics of one test."""

    kafka: str
    source: str
    target: str
    letters: str

    @property
    def config(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.kafka}

    def publish(self, numbers: range) -> None:
        producer = Producer({**self.config, "linger.ms": 5})
        for number in numbers:
            producer.produce(self.source, value=b"%d" % number, key=b"%d" % number)
        assert producer.flush(20) == 0

    def read(self, topic: str, *, isolation: str = "read_committed") -> list[Any]:
        """Return all messages of a topic that such a reader sees."""
        consumer = Consumer({**self.config, "group.id": "reader", "isolation.level": isolation})
        try:
            found = []
            for number in range(PARTITIONS if topic != self.letters else 1):
                where = TopicPartition(topic, number, 0)
                end = consumer.get_watermark_offsets(where, timeout=10)[1]
                consumer.assign([where])
                until = time.monotonic() + 15
                while consumer.position([where])[0].offset < end and time.monotonic() < until:
                    found += [one for one in consumer.consume(10_000, 0.1) if one.error() is None]
            return found
        finally:
            consumer.close()

    def values(self, *, isolation: str = "read_committed") -> Counter[bytes]:
        return Counter(message.value() for message in self.read(self.target, isolation=isolation))


@pytest.fixture
def streams(kafka: str, unique: str) -> Iterator[Streams]:
    admin = AdminClient({"bootstrap.servers": kafka})
    names = [f"sink{unique}.{part}" for part in ("source", "target", "letters")]
    topics = [NewTopic(name, 1 if name.endswith("letters") else PARTITIONS, 1) for name in names]
    for future in admin.create_topics(topics).values():
        future.result(20)
    yield Streams(kafka=kafka, source=names[0], target=names[1], letters=names[2])
    for future in admin.delete_topics(names).values():
        future.result(20)


class Echo:
    """A pipeline that sends every number on, except multiples of 100, which are bad."""

    def __init__(
        self, streams: Streams, *, instance: str = "echo-0", max_batch: int = 100, overlapped: bool = False
    ) -> None:
        self._streams = streams
        self._pipeline = Overlapped(self) if overlapped else self
        self.consumer = PartitionedConsumer(
            streams.config,
            [streams.source],
            group=f"{streams.source}.echo",
            instance=instance,
            max_batch=max_batch,
        )
        self.sink = KafkaSink(
            streams.config,
            self.consumer,
            group=f"{streams.source}.echo",
            service="echo",
            instance=instance,
            dead_letters=streams.letters,
        )
        self.done = 0
        self.before_commit: Callable[[Transaction], None] = lambda _: None

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        return self.sink.positions(partitions)

    def prepare(self, batches: Sequence[PartitionBatch]) -> Callable[[], None]:
        return partial(self.process, batches, self.sink.member())

    def process(self, batches: Sequence[PartitionBatch], member: Any = None) -> None:
        with self.sink.transaction(batches, member=member) as transaction:
            for batch in batches:
                values = [
                    message.value() or b"" for message in batch.messages if int(message.value() or 1) % 100
                ]
                transaction.send(self._streams.target, values, values)
                for message in batch.messages:
                    if int(message.value() or 1) % 100 == 0:
                        transaction.dead_letter(
                            message, BadMessageError("a multiple of 100", stage="validate")
                        )
            self.before_commit(transaction)
        self.done += sum(len(batch.messages) for batch in batches)

    def forget(self, partitions: Collection[Partition]) -> None:
        return

    def idle(self) -> Mapping[Partition, float]:
        return {}

    def run(self, total: int, *, seconds: float = 40) -> None:
        until = time.monotonic() + seconds

        def done() -> bool:
            assert time.monotonic() < until, f"{self.done} of {total} after {seconds} s"
            return self.done >= total

        run_pipeline(self.consumer, self._pipeline, stop=threading.Event(), health=Health(), until=done)


@pytest.fixture(params=[False, True], ids=["in turn", "overlapped"])
def overlapped(request: pytest.FixtureRequest) -> bool:
    """Whether a batch is prepared while the one before it is committed."""
    return bool(request.param)


def expected(numbers: range) -> Counter[bytes]:
    return Counter(b"%d" % number for number in numbers if number % 100)


def test_everything_arrives_once_and_bad_ones_aside(streams: Streams, overlapped: bool) -> None:
    streams.publish(range(25_000))
    Echo(streams, max_batch=10_000, overlapped=overlapped).run(25_000)
    assert streams.values() == expected(range(25_000))
    letters = streams.read(streams.letters)
    assert sorted(int(letter.value()) for letter in letters) == list(range(0, 25_000, 100))
    origin = read_origin(letters[0].headers())
    assert origin is not None
    assert (origin.topic, origin.stage, origin.message) == (streams.source, "validate", "a multiple of 100")


@pytest.mark.parametrize("moment", ["in the block", "offsets added", "committed"])
def test_a_crash_at_any_moment_doubles_and_loses_nothing(
    streams: Streams, overlapped: bool, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams.publish(range(1_000))
    echo = Echo(streams, overlapped=overlapped)
    calls = [0]

    def crash(transaction: Any = None) -> None:
        calls[0] += 1
        if calls[0] == 4:
            raise Crash

    commit = echo.sink._commit

    def dying_commit(producer: Producer, batches: Sequence[PartitionBatch], member: Any) -> None:
        if moment == "committed":
            commit(producer, batches, member)
        crash()
        commit(producer, batches, member) if moment != "committed" else None

    if moment == "in the block":
        echo.before_commit = crash
    else:
        monkeypatch.setattr(echo.sink, "_commit", dying_commit)
        monkeypatch.setattr(echo.sink, "_abort", lambda _producer: None)  # a dead process does not abort
    with pytest.raises(Crash):
        echo.run(1_000)
    del echo
    after = Echo(streams, overlapped=overlapped)
    seen = sum(streams.values().values()) + len(streams.read(streams.letters))
    after.run(1_000 - seen)
    assert streams.values() == expected(range(1_000))
    assert len(streams.read(streams.letters)) == 10


def test_an_aborted_transaction_is_repeated_by_the_loop_itself(streams: Streams, overlapped: bool) -> None:
    streams.publish(range(500))
    echo = Echo(streams, overlapped=overlapped)
    calls = [0]

    def fail(transaction: Transaction) -> None:
        calls[0] += 1
        if calls[0] in {2, 3}:
            transaction._producer.flush(10)  # so that it is in the topic, though never committed
            raise UnavailableError("the model is being exchanged")

    echo.before_commit = fail
    echo.run(500)
    assert streams.values() == expected(range(500))
    assert sum(streams.values(isolation="read_uncommitted").values()) > 495


def test_a_transaction_that_can_be_neither_committed_nor_aborted_is_left_to_a_new_producer(
    streams: Streams,
    overlapped: bool,
) -> None:
    streams.publish(range(500))
    echo = Echo(streams, overlapped=overlapped)
    producers: list[Producer] = []

    def end_behind_its_back(transaction: Transaction) -> None:
        if transaction._producer not in producers:
            producers.append(transaction._producer)
        if len(producers) < 3:
            transaction._producer.abort_transaction(20)

    echo.before_commit = end_behind_its_back
    echo.run(500)
    assert len(producers) == 3
    assert streams.values() == expected(range(500))


class Hanging:
    """A producer whose offsets are never answered, and which then refuses all else, as the real one has done (ADR 9)."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    def send_offsets_to_transaction(self, *_: object) -> None:
        threading.Event().wait()

    def abort_transaction(self, _seconds: float) -> None:
        raise KafkaException(KafkaError(KafkaError._CONFLICT, "send_offsets_to_transaction is in progress"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


def test_offsets_that_are_never_answered_are_left_to_a_new_producer(
    streams: Streams, overlapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_sink, "_PATIENCE_SECONDS", 0.5)
    streams.publish(range(500))
    echo = Echo(streams, overlapped=overlapped)
    started = KafkaSink._started_producer
    producers: list[Any] = []

    def first_hangs(sink: KafkaSink) -> Any:
        producers.append(Hanging(started(sink)) if not producers else started(sink))
        if len(producers) == 1:
            monkeypatch.setattr(kafka_sink, "_TRANSACTION_SECONDS", 1.0)
        else:
            monkeypatch.undo()
        return producers[-1]

    monkeypatch.setattr(KafkaSink, "_started_producer", first_hangs)
    echo.run(500)
    assert len(producers) == 2
    assert streams.values() == expected(range(500))


def test_a_second_process_of_the_same_name_fences_the_first(streams: Streams, overlapped: bool) -> None:
    streams.publish(range(100))
    first = Echo(streams, overlapped=overlapped)
    second: list[Echo] = []

    def start_second(_transaction: Transaction) -> None:
        if not second:
            second.append(Echo(streams, overlapped=overlapped))
            second[0].sink.positions([Partition(streams.source, 0)])

    first.before_commit = start_second
    with pytest.raises(KafkaException):
        first.run(100)
    second[0].run(100)
    assert streams.values() == expected(range(100))


def test_a_member_that_comes_amid_commits_doubles_and_loses_nothing(
    streams: Streams, overlapped: bool
) -> None:
    """Commits are slow, so that the group moves on while one is under way."""
    streams.publish(range(4_000))
    members = [Echo(streams, instance=name, max_batch=50, overlapped=overlapped) for name in ("a", "b")]
    for member in members:
        member.before_commit = lambda _: time.sleep(0.02)
    failures: list[BaseException] = []

    def run(member: Echo) -> None:
        def done() -> bool:
            return bool(failures) or sum(one.done for one in members) >= 4_000

        try:
            run_pipeline(
                member.consumer, member._pipeline, stop=threading.Event(), health=Health(), until=done
            )
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(member,)) for member in members]
    threads[0].start()
    until = time.monotonic() + 40
    while not members[0].done and time.monotonic() < until:
        time.sleep(0.01)
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert not failures
    after = Echo(
        streams, instance="c"
    )  # what the two have left, where they counted a batch that was thrown away
    left = 4_000 - sum(streams.values().values()) - len(streams.read(streams.letters))
    after.run(left)
    assert streams.values() == expected(range(4_000))
    assert len(streams.read(streams.letters)) == 40


def test_a_gap_is_an_error(streams: Streams) -> None:
    streams.publish(range(300))
    Echo(streams).run(300)
    streams.publish(range(300, 600))
    admin = AdminClient(streams.config)
    ends = [TopicPartition(streams.source, number, -1) for number in range(PARTITIONS)]
    for future in admin.delete_records(ends).values():
        future.result(10)
    with pytest.raises(OffsetGapError, match="records were deleted before they were read"):
        Echo(streams).run(300)
