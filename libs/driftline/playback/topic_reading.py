"""Read topics as a reader of the log does: without a group, without commits, only what was committed."""

import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from driftline.runtime.errors import ConfigurationError, UnavailableError

#: Next offset to read of each partition of each topic.
Positions = Mapping[tuple[str, int], int]

_BATCH = 10_000
_TIMEOUT_SECONDS = 10.0


class TopicReader:
    """Reads all partitions of some topics from given positions (the beginning, unless said).

    Sees what a ``read_committed`` consumer sees, commits nothing and belongs to no group that anyone
    else could disturb.
    """

    def __init__(
        self, config: Mapping[str, Any], topics: Iterable[str], *, positions: Positions | None = None
    ) -> None:
        self._consumer = Consumer(
            {
                **config,
                "group.id": "driftline-reader",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
            }
        )
        self.partitions = [(topic, partition) for topic in topics for partition in self._partitions_of(topic)]
        positions = positions or {}
        self._consumer.assign(
            [TopicPartition(*place, positions.get(place, OFFSET_BEGINNING)) for place in self.partitions]
        )
        self._ended: set[tuple[str, int]] = set()

    def __enter__(self) -> Self:
        """Return the reader, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the consumer."""
        self.close()

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def poll(self, timeout: float) -> list[Message]:
        """Return what there is, after waiting for a first message for at most ``timeout`` seconds."""
        first = self._consumer.poll(timeout)
        if first is None:
            return []
        return self._sort_out([first, *self._consumer.consume(_BATCH, 0)])

    def read_to_end(self, *, idle_seconds: float = 30.0) -> Iterator[Message]:
        """Yield everything up to the end of every partition.

        Raises
        ------
        UnavailableError
            Where the broker says nothing for ``idle_seconds``.
        """
        heard = time.monotonic()
        while len(self._ended) < len(self.partitions):
            ended = len(self._ended)
            messages = self.poll(0.5)
            yield from messages
            if messages or len(self._ended) > ended:
                heard = time.monotonic()
            elif time.monotonic() - heard > idle_seconds:
                msg = f"the broker sent nothing for {idle_seconds:.0f} s while topics were read to their end"
                raise UnavailableError(msg)

    def ends(self) -> dict[tuple[str, int], int]:
        """Return the offset after the last message of every partition."""
        return {place: self._range(place)[1] for place in self.partitions}

    def seek_back(self, count: int) -> None:
        """Go on reading ``count`` offsets before the end of every partition, or at its oldest message."""
        ranges = {place: self._range(place) for place in self.partitions}
        self.seek_to({place: max(high - count, low) for place, (low, high) in ranges.items()})

    def seek_to(self, positions: Positions) -> None:
        """Go on reading from other positions."""
        self._ended.clear()
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in positions.items()])

    def _range(self, place: tuple[str, int]) -> tuple[int, int]:
        try:
            found = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=_TIMEOUT_SECONDS)
        except KafkaException as error:
            raise UnavailableError(f"the broker does not answer: {error}") from error
        if found is None:
            raise UnavailableError(f"the broker does not say where {place[0]}[{place[1]}] ends")
        return found

    def _partitions_of(self, topic: str) -> list[int]:
        try:
            found = self._consumer.list_topics(topic, timeout=_TIMEOUT_SECONDS).topics[topic]
        except KafkaException as error:
            raise UnavailableError(f"the broker does not answer: {error}") from error
        if found.error is not None or not found.partitions:
            raise ConfigurationError(f"there is no topic {topic!r} on this broker")
        return sorted(found.partitions)

    def _sort_out(self, messages: list[Message]) -> list[Message]:
        good = []
        for message in messages:
            error = message.error()
            place = (message.topic() or "", message.partition() or 0)
            if error is None:
                self._ended.discard(place)
                good.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(place)
            elif not error.retriable():
                raise UnavailableError(f"reading {place[0]}[{place[1]}] failed: {error}")
        return good
