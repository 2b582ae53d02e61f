"""Messages from Kafka in batches per partition, started exactly where the sink says.

The group decides *which* partitions are ours, the sink decides *where* each one starts. Between the two lies
the protocol; its numbers return as comments beside the code.

1. Assigned: the group's answer is acknowledged, but the client is given nothing to fetch before the sink has said
   where. (Given the partition, paused, at a provisional offset, and then the sink's, the client has been seen to go
   on from the provisional one after the broker was killed: 34,000 records were skipped.)
2. Started: outside of the rebalance callback, at the sink's offset, checked against what the topic holds. Only now
   is the client given the partition, and it is given no other position until it is taken from it.
3. Handed out: only messages of started partitions. What a call of ``consume`` returned of a partition that
   was revoked (or revoked and assigned again) during that call is dropped; it comes again from the sink's offset.
4. Held: after a failure the partition is taken from the client and no longer started; what had been fetched of it is
   dropped. Polling goes on, so that the member stays in its group, and after the delay comes step 2.
5. Revoked or lost: no longer started from that instant. The callback runs inside ``consume`` on the one
   thread that also writes, so nothing of a revoked partition is ever written.
"""

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from driftline.runtime import metrics
from driftline.runtime.errors import OffsetGapError, UnavailableError
from driftline.runtime.logging import get_logger
from driftline.streaming.partitions import Partition, PartitionBatch

_log = get_logger(__name__)

#: A leader that has just been elected may for an instant know less than it holds.
_BEYOND_END_GRACE_SECONDS = 10.0
_REQUEST_SECONDS = 10.0


def consumer_config(
    kafka: Mapping[str, Any], *, group: str, instance: str, max_poll_interval_ms: int = 300_000
) -> dict[str, Any]:
    """Return librdkafka's settings for a member of a group that the sink's offsets drive."""
    return {
        **kafka,
        "group.id": group,
        # A restarted instance gets its partitions back without a rebalance.
        "group.instance.id": instance,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 3_000,
        "max.poll.interval.ms": max_poll_interval_ms,
        # The offset is the sink's to keep; one that the topic no longer holds is an error, not a jump.
        "auto.offset.reset": "error",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
        # Markers of transactions fill offsets and are never handed out: this tells that the end is reached.
        "enable.partition.eof": True,
        # Latency: answer a fetch as soon as there is a byte, come back quickly after an empty or failed one.
        "fetch.min.bytes": 1,
        "fetch.wait.max.ms": 50,
        "fetch.error.backoff.ms": 20,
        "fetch.queue.backoff.ms": 5,
        "socket.nagle.disable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        # Throughput: several batches of 10,000 wait in the client while one is worked on.
        "max.partition.fetch.bytes": 4 << 20,
        "fetch.max.bytes": 32 << 20,
        "queued.min.messages": 50_000,
        "queued.max.messages.kbytes": 64 << 10,
        "statistics.interval.ms": 0,
    }


class PartitionedConsumer:
    """A member of a consumer group, started partition by partition (see the module's protocol)."""

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topics: Sequence[str],
        *,
        group: str,
        instance: str,
        max_batch: int = 10_000,
        max_poll_interval_ms: int = 300_000,
    ) -> None:
        config = consumer_config(
            kafka, group=group, instance=instance, max_poll_interval_ms=max_poll_interval_ms
        )
        self._consumer = Consumer({**config, "error_cb": self._client_error})
        self._max_batch = max_batch
        #: So long may pass between two polls before the group takes the partitions away, in seconds.
        self.max_silence = max_poll_interval_ms / 1_000
        self._due: dict[Partition, float] = {}  # assigned but not started -> when to start
        self._started: dict[Partition, int] = {}  # started -> next offset
        self._ends: dict[Partition, int] = {}  # started -> where the broker last said that there is no more
        self._revoked: set[Partition] = set()
        self._beyond_end_since: dict[Partition, float] = {}
        self.joined = False
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    @property
    def assigned(self) -> frozenset[Partition]:
        """Partitions that the group has given us."""
        return frozenset(self._due) | frozenset(self._started)

    @property
    def started(self) -> Mapping[Partition, int]:
        """Partitions whose messages are handed out, with the offset that comes next."""
        return self._started

    def due(self) -> list[Partition]:
        """Return the partitions that wait for their start and whose delay is over."""
        now = time.monotonic()
        return [partition for partition, when in self._due.items() if when <= now]

    def at_end(self, partition: Partition) -> bool:
        """Tell whether everything that a partition holds was handed out, what open transactions hold back included."""
        next_offset = self._started.get(partition)
        if next_offset is None or self._ends.get(partition) != next_offset:
            return False
        # Told of the end, the client may still stand before a transaction that is open: the broker's own end is later.
        _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return 0 <= high <= next_offset

    def take_revoked(self) -> set[Partition]:
        """Return the partitions that were revoked since the last call; whoever caches them forgets them."""
        revoked, self._revoked = self._revoked, set()
        return revoked

    def start(self, partition: Partition, position: int | None) -> None:
        """Start a partition at the sink's position; at the beginning where it has none (None).

        Raises
        ------
        OffsetGapError
            The topic no longer holds that offset, or never did.
        UnavailableError
            The broker does not say what the topic holds.
        """
        low, high = self._held_offsets(partition)
        offset = self._checked(partition, position, low=low, high=high)
        # (2) An explicit assignment, not a seek: a seek may meet a partition that is not fetching yet.
        self._consumer.incremental_assign([TopicPartition(partition.topic, partition.number, offset)])
        del self._due[partition]
        self._started[partition] = offset
        _log.info("partition started", partition=str(partition), offset=offset, behind=high - offset)

    def hold(self, partitions: Iterable[Partition], *, seconds: float) -> None:
        """Stop partitions and make them due for a start after a delay."""
        # (4)
        held = [partition for partition in partitions if partition in self.assigned]
        self._take_from_client(held)
        for partition in held:
            self._due[partition] = time.monotonic() + seconds

    def poll(self, timeout: float) -> list[PartitionBatch]:
        """Wait for a message, then take what has arrived, up to the batch size.

        Raises
        ------
        OffsetGapError
            The next offset of a started partition is gone.
        """
        messages = self._consumer.consume(1, timeout)
        if messages and self._max_batch > 1:
            messages += self._consumer.consume(self._max_batch - 1, 0)
        if any(message.error() is not None for message in messages):
            messages = [message for message in messages if not self._is_error(message)]
        batches = []
        grouped: dict[Partition, list[Message]] = {}
        for (topic, number), run in itertools.groupby(messages, _origin):
            grouped.setdefault(Partition(topic, number), []).extend(run)
        for partition, group in grouped.items():
            if partition not in self._started:
                continue  # (3)
            next_offset = _offset(group[-1]) + 1
            self._reached(partition, next_offset)
            batches.append(PartitionBatch(partition=partition, messages=group, next_offset=next_offset))
        return batches

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        """Return the group's committed offsets; None where there is none."""
        wanted = [TopicPartition(*partition) for partition in partitions]
        try:
            answer = self._consumer.committed(wanted, timeout=_REQUEST_SECONDS)
        except KafkaException as error:
            raise UnavailableError(f"the group's offsets cannot be read: {error}") from error
        for found in answer:
            if found.error is not None:
                raise UnavailableError(f"the offset of {found.topic}/{found.partition}: {found.error}")
        return {
            Partition(found.topic, found.partition): found.offset if found.offset >= 0 else None
            for found in answer
        }

    def group_metadata(self) -> Any:
        """Return what a transaction needs to fence the group's zombies."""
        return self._consumer.consumer_group_metadata()

    def measure_lag(self) -> None:
        """Set the lag metric of every started partition, from what the fetches said (no request)."""
        for partition, next_offset in self._started.items():
            where = TopicPartition(*partition)
            _, high = self._consumer.get_watermark_offsets(where, cached=True)
            if high >= 0:
                metrics.LAG.labels(partition.topic, str(partition.number)).set(max(0, high - next_offset))

    def oldest(self, partition: Partition) -> int:
        """Return the oldest offset that a partition holds: its beginning."""
        return self._held_offsets(partition)[0]

    def end(self, partition: Partition) -> int:
        """Return the offset after the newest record that a partition holds."""
        return self._held_offsets(partition)[1]

    def close(self) -> None:
        """Leave. A static member keeps its partitions for the session timeout, for its next start."""
        self._consumer.close()

    def _held_offsets(self, partition: Partition) -> tuple[int, int]:
        try:
            held = self._consumer.get_watermark_offsets(
                TopicPartition(*partition), timeout=_REQUEST_SECONDS, cached=False
            )
        except KafkaException as error:
            self._beyond_end_since.pop(partition, None)  # a broker that was away may still be loading its log
            raise UnavailableError(f"{partition}: the broker does not say what it holds: {error}") from error
        if held is None:
            self._beyond_end_since.pop(partition, None)
            raise UnavailableError(f"{partition}: the broker does not say what it holds (timeout)")
        return held

    def _checked(self, partition: Partition, position: int | None, *, low: int, high: int) -> int:
        if position is None:
            if low > 0:
                _log.warning(
                    "no stored offset; starting at the oldest record kept",
                    partition=str(partition),
                    oldest=low,
                )
            return low
        if position < low:
            msg = (
                f"{partition}: {low - position} records were deleted before they were read (next is offset "
                f"{position}, the oldest kept is {low}). Lengthen the topic's retention; restore the records "
                f"from the archive, or delete the stored offset to go on without them"
            )
            raise OffsetGapError(msg)
        if position > high:
            since = self._beyond_end_since.setdefault(partition, time.monotonic())
            msg = (
                f"{partition}: the stored offset {position} lies {position - high} beyond the end {high}: the topic "
                f"was made anew or has lost records. Delete the stored offset to start from what it holds"
            )
            if time.monotonic() - since < _BEYOND_END_GRACE_SECONDS:
                raise UnavailableError(msg)
            raise OffsetGapError(msg)
        self._beyond_end_since.pop(partition, None)
        return position

    def _is_error(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return False
        if error.fatal() or error.code() == KafkaError._FATAL:
            raise KafkaException(error)
        if error.code() == KafkaError._PARTITION_EOF:
            self._ends[Partition(*_origin(message))] = _offset(message)
            self._reached(Partition(*_origin(message)), _offset(message))
            return True
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            partition = Partition(*_origin(message))
            if partition in self._started:
                raise OffsetGapError(
                    f"{partition}: offset {self._started[partition]} is no longer in the topic: records were lost "
                    f"before they were read. Lengthen its retention or add instances; {error.str()}"
                )
            return True
        _log.warning("consumer error", code=error.name(), error=error.str())
        return True

    def _reached(self, partition: Partition, next_offset: int) -> None:
        """Note what comes next: the end of a partition may be told before the records that lead to it are counted."""
        if partition in self._started:
            self._started[partition] = max(self._started[partition], next_offset)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # (1)
        for where in partitions:
            self._due[Partition(where.topic, where.partition)] = 0.0
        consumer.incremental_assign([])
        self._rebalanced("assigned", partitions)

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # (5)
        revoked = [Partition(where.topic, where.partition) for where in partitions]
        self._take_from_client(revoked)
        for partition in revoked:
            self._due.pop(partition, None)
            self._beyond_end_since.pop(partition, None)
        self._revoked.update(revoked)
        self._rebalanced("revoked", partitions)

    def _take_from_client(self, partitions: Iterable[Partition]) -> None:
        taken = [partition for partition in partitions if self._started.pop(partition, None) is not None]
        for partition in taken:
            self._ends.pop(partition, None)
        self._consumer.incremental_unassign([TopicPartition(*partition) for partition in taken])

    def _rebalanced(self, what: str, partitions: Sequence[TopicPartition]) -> None:
        self.joined = True
        metrics.REBALANCES.labels(what).inc()
        names = [str(Partition(where.topic, where.partition)) for where in partitions]
        _log.info("rebalance", kind=what, partitions=names)

    @staticmethod
    def _client_error(error: KafkaError) -> None:
        _log.warning("Kafka client", code=error.name(), error=error.str())


def _origin(message: Message) -> tuple[str, int]:
    return message.topic(), message.partition()  # type: ignore[return-value]  # messages without an error have both


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None  # noqa: S101  a message without an error has one
    return offset
