"""Kafka to Kafka, exactly once: outputs, dead letters and offsets are one transaction.

1. On assignment the group's committed offset is where a partition starts. The broker first settles what an
   unfinished transaction left (``read_committed`` waits for it).
2. Begin. The transactional id is the group and the instance: a second process of that name fences the first.
3. Send the outputs and the dead letters.
4. Add the next offsets, with the member's generation: a member that the group has dropped is fenced here.
5. Commit, which waits until every message is acknowledged.

Any failure from 2 to 5 that the broker calls abortable: abort, and UnavailableError makes the loop start the
partitions anew at 1. A fatal one (fenced) ends the process. What can be neither committed nor aborted in time
is left to a new producer of the same name, at 1: it fences the old one, and the broker settles what that one
left. (librdkafka may lose a request of a transaction when the broker is killed, and wait for ever for its answer;
only a new producer helps.)
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from driftline.contracts.topics import Topics
from driftline.runtime import metrics
from driftline.runtime.errors import BadMessageError, UnavailableError
from driftline.runtime.logging import get_logger
from driftline.streaming.consumer import PartitionedConsumer
from driftline.streaming.dead_letters import DeadLetter, count_dead_letters, dead_letter
from driftline.streaming.partitions import Partition, PartitionBatch
from driftline.streaming.settings import StreamSettings

_log = get_logger(__name__)

#: How long a start, a commit or an abort may take, with all that is tried again.
_TRANSACTION_SECONDS = 20.0
_RETRY_SECONDS = 0.1
_PATIENCE_SECONDS = 2.0


class Member(Protocol):
    """The consumer group whose offsets a transaction commits, as one of its members."""

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        """Return the group's committed offsets; None where there is none."""
        ...

    def group_metadata(self) -> Any:
        """Return what a transaction needs to fence the group's zombies."""
        ...


class Transaction:
    """What goes out in one transaction."""

    def __init__(self, producer: Producer, *, dead_letters: str, service: str, instance: str) -> None:
        self._producer = producer
        self._dead_letters = dead_letters
        self._service = service
        self._instance = instance
        self.letters: list[DeadLetter] = []
        self.failures: list[KafkaError] = []

    def send(self, topic: str, keys: Sequence[bytes | str | None], values: Sequence[bytes]) -> None:
        """Send one message per key and value."""
        pending: list[dict[str, Any]] = [
            {"key": key, "value": value} for key, value in zip(keys, values, strict=True)
        ]
        while pending:
            queued = self._producer.produce_batch(topic, pending, on_delivery=self._delivered)
            if queued == len(pending):
                return
            # The client's queue is full: let some go out, then send the rest.
            refused = [
                (entry, error) for entry in pending if (error := entry.pop("_error", None)) is not None
            ]
            for _, error in refused:
                if error.code() != KafkaError._QUEUE_FULL:
                    raise KafkaException(error)
            pending = [entry for entry, _ in refused]
            self._producer.poll(0.05)

    def dead_letter(self, message: Message, error: BadMessageError) -> None:
        """Send a bad message to the dead-letter topic."""
        letter = dead_letter(message, error, service=self._service, instance=self._instance)
        while True:
            try:
                self._producer.produce(
                    self._dead_letters,
                    value=letter.value,
                    key=letter.key,
                    headers=list(letter.headers),
                    on_delivery=self._delivered,
                )
                break
            except BufferError:
                self._producer.poll(0.05)
        self.letters.append(letter)

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self.failures.append(error)


class KafkaSink:
    """The transactional producer of one member of a consumer group."""

    def __init__(
        self,
        kafka: Mapping[str, Any],
        consumer: Member,
        *,
        group: str,
        service: str,
        instance: str,
        dead_letters: str,
    ) -> None:
        self._consumer = consumer
        self._service = service
        self._instance = instance
        self._dead_letters = dead_letters
        self._config = {
            **kafka,
            "transactional.id": f"{group}-{instance}",
            "transaction.timeout.ms": 60_000,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 1,
            "delivery.report.only.error": True,  # a commit waits for every message, and fails where one does
            "queue.buffering.max.messages": 500_000,
            "batch.num.messages": 10_000,
            "socket.nagle.disable": True,
            "reconnect.backoff.max.ms": 1_000,
        }
        self._producer: Producer | None = None

    def positions(self, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        """Return where partitions start: the group's committed offsets."""
        if self._producer is None:
            self._producer = self._started_producer()
        return self._consumer.committed(partitions)  # (1)

    def _started_producer(self) -> Producer:
        producer = Producer(self._config)
        try:
            producer.init_transactions(_TRANSACTION_SECONDS)
        except KafkaException as error:
            if error.args[0].fatal():
                raise
            raise UnavailableError(f"transactions cannot be started: {error}") from error
        return producer

    def member(self) -> Any:
        """Return the group's member as it is now, for a transaction that is made later, in its name."""
        return self._consumer.group_metadata()

    @contextmanager
    def transaction(self, batches: Sequence[PartitionBatch], *, member: Any = None) -> Iterator[Transaction]:
        """Commit what the block sends, and the batches as processed; abort if anything fails.

        ``member`` is in whose name the offsets are committed; the member as it is then unless given.

        Raises
        ------
        UnavailableError
            The transaction was aborted; the batches come again.
        """
        producer = self._producer
        if producer is None:
            raise UnavailableError("the transactions have not been started anew yet")
        transaction = Transaction(
            producer, dead_letters=self._dead_letters, service=self._service, instance=self._instance
        )
        try:
            producer.begin_transaction()  # (2)
            yield transaction  # (3)
            self._commit(producer, batches, member)
        except KafkaException as error:
            if error.args[0].fatal():
                metrics.TRANSACTIONS.labels("fenced").inc()
                raise
            self._abort(producer)
            raise UnavailableError(f"transaction aborted: {error}") from error
        except BaseException:
            self._abort(producer)
            raise
        if transaction.failures:  # cannot be: a commit fails where a message does
            raise UnavailableError(f"messages were not acknowledged: {transaction.failures[0]}")
        metrics.TRANSACTIONS.labels("committed").inc()
        count_dead_letters(transaction.letters)

    def _commit(self, producer: Producer, batches: Sequence[PartitionBatch], member: Any) -> None:
        offsets = [
            TopicPartition(batch.partition.topic, batch.partition.number, batch.next_offset)
            for batch in batches
        ]
        until = time.monotonic() + _TRANSACTION_SECONDS
        member = self.member() if member is None else member
        send = partial(producer.send_offsets_to_transaction, offsets, member)
        _retried(partial(_in_time, send), until=until)  # (4)
        _retried(producer.commit_transaction, until=until)  # (5)

    def _abort(self, producer: Producer) -> None:
        metrics.TRANSACTIONS.labels("aborted").inc()
        try:
            _retried(producer.abort_transaction, until=time.monotonic() + _TRANSACTION_SECONDS)
        except KafkaException as error:
            if error.args[0].fatal():
                raise
            _log.error("a transaction is in doubt; a new producer settles it", error=str(error))
            producer.purge()
            self._producer = None

    def close(self) -> None:
        """Let the last callbacks run."""
        if self._producer is not None:
            with suppress(SystemError):  # what confluent-kafka makes of a flush after the producer was fenced
                self._producer.flush(1.0)


def transactional_member(
    settings: StreamSettings,
    topics: Topics,
    inputs: Iterable[str],
    *,
    service: str,
    max_batch: int | None = None,
) -> tuple[PartitionedConsumer, KafkaSink]:
    """Return a consumer of some topics, and the sink that commits its offsets with what is sent.

    The group is the service in its project and environment. ``max_batch`` is the settings' unless given.
    """
    group = f"{topics.prefix}.{service}"
    consumer = PartitionedConsumer(
        settings.kafka_config(),
        sorted(inputs),
        group=group,
        instance=settings.instance,
        max_batch=max_batch or settings.max_batch,
        max_poll_interval_ms=settings.max_poll_interval_ms,
    )
    sink = KafkaSink(
        settings.kafka_config(),
        consumer,
        group=group,
        service=service,
        instance=settings.instance,
        dead_letters=topics.dead_letters,
    )
    return consumer, sink


def _in_time(request: Callable[[float], Any], seconds: float) -> None:
    """Ask with a time-out that is not always kept (ADR 9); where it is not, the thread that waits is left behind.

    Raises
    ------
    UnavailableError
        There is no answer.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            request(seconds)
        except BaseException as error:  # noqa: BLE001  raised again where the call was made
            errors.append(error)

    thread = threading.Thread(target=run, name="transaction offsets", daemon=True)
    thread.start()
    thread.join(seconds + _PATIENCE_SECONDS)
    if thread.is_alive():
        raise UnavailableError(
            f"the broker's answer to a transaction's offsets did not come in {seconds:.0f} s"
        )
    if errors:
        raise errors[0]


def _retried(request: Callable[[float], Any], *, until: float) -> None:
    """Ask with the seconds that are left, again where the error allows it."""
    while True:
        try:
            request(max(0.1, until - time.monotonic()))
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() + _RETRY_SECONDS >= until:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return
