"""A look into partitions from outside: what is committed, what is visible, everything that is there.

Independent of Faust and of the event loop, so that it can judge both.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from driftline.runtime.errors import OffsetGapError, UnavailableError
from driftline.streaming.partitions import Partition

_REQUEST_SECONDS = 10.0
_READ_SECONDS = 60.0
_AHEAD = 500


class PartitionReader:
    """Reads with its own connection and without joining the group. Blocking; for one thread at a time."""

    def __init__(self, kafka: Mapping[str, Any], *, group: str) -> None:
        self._consumer = Consumer(
            {
                **kafka,
                "group.id": group,  # to ask for its offsets, not to join
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "allow.auto.create.topics": False,
                "fetch.wait.max.ms": 10,
                "fetch.error.backoff.ms": 20,
                "socket.nagle.disable": True,
                "reconnect.backoff.max.ms": 1_000,
                "log_level": 2,
            }
        )
        self._ahead: dict[Partition, tuple[int, deque[int]]] = {}  # from where on, the visible offsets

    def committed(self, partition: Partition) -> int | None:
        """Return the group's committed offset, None where there is none; UnavailableError without an answer."""
        try:
            found = self._consumer.committed([TopicPartition(*partition)], timeout=_REQUEST_SECONDS)[0]
        except KafkaException as error:
            raise UnavailableError(f"{partition}: the group's offset cannot be read: {error}") from error
        if found.error is not None:
            raise UnavailableError(f"{partition}: the group's offset cannot be read: {found.error}")
        return found.offset if found.offset >= 0 else None

    def end(self, partition: Partition) -> int:
        """Return the offset behind the last record; UnavailableError without an answer."""
        until = time.monotonic() + _REQUEST_SECONDS
        while True:
            try:
                held = self._consumer.get_watermark_offsets(
                    TopicPartition(*partition), timeout=_REQUEST_SECONDS
                )
            except KafkaException as error:
                if error.args[0].code() == KafkaError._UNKNOWN_PARTITION and time.monotonic() < until:
                    time.sleep(0.1)  # a topic that has just been made
                    continue
                raise UnavailableError(
                    f"{partition}: the broker does not say what it holds: {error}"
                ) from error
            if held is None:
                raise UnavailableError(f"{partition}: the broker does not say what it holds (timeout)")
            return held[1]

    def first_visible(self, partition: Partition, offset: int | None) -> int | None:
        """Return the first offset from ``offset`` on (None: the beginning) that holds a record for readers.

        Transaction markers, aborted and compacted records are none. None where there is no record yet.

        Raises
        ------
        OffsetGapError
            ``offset`` is no longer in the topic, or never was.
        UnavailableError
            The broker does not answer.
        """
        if offset is not None and partition in self._ahead:
            start, offsets = self._ahead[partition]
            if start <= offset:
                while offsets and offsets[0] < offset:
                    offsets.popleft()
                if offsets:
                    return offsets[0]
        found = deque(message.offset() or 0 for message in self._records(partition, offset, _AHEAD))
        self._ahead[partition] = (offset or 0, found)
        return found[0] if found else None

    def read_all(self, partition: Partition) -> Iterator[Message]:
        """Yield every record of a partition; raises like ``first_visible``."""
        return self._records(partition, None, None)

    def _records(self, partition: Partition, offset: int | None, limit: int | None) -> Iterator[Message]:
        start = OFFSET_BEGINNING if offset is None else offset
        self._consumer.assign([TopicPartition(*partition, start)])
        until = time.monotonic() + (_REQUEST_SECONDS if limit else _READ_SECONDS)
        taken = 0
        try:
            while limit is None or not taken:
                if time.monotonic() > until:
                    raise UnavailableError(f"{partition}: no answer from the broker")
                messages = self._consumer.consume(1, 0.5)
                for message in messages + self._consumer.consume((limit or 10_000) - 1, 0):
                    error = message.error()
                    if error is None:
                        taken += 1
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF:
                        return
                    else:
                        self._raise(partition, offset, error)
        finally:
            self._consumer.unassign()

    @staticmethod
    def _raise(partition: Partition, offset: int | None, error: KafkaError) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            msg = (
                f"{partition}: offset {offset} is not in the topic: records were deleted before they were read, or the "
                f"topic was made anew. Reset the group's offsets to go on without them"
            )
            raise OffsetGapError(msg)
        if error.fatal():
            raise KafkaException(error)

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()
