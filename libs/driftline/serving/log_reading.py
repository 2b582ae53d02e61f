"""Read stretches of topics, forwards and backwards, as a committed reader sees them. Commits nothing."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from driftline.features.keys import partition_of
from driftline.runtime.errors import ConfigurationError, UnavailableError
from driftline.runtime.ids import id_time_ms

#: A request is logged after its making; clocks differ by less than this.
CLOCK_SLACK_MS = 60_000

_REQUEST_SECONDS = 10.0
_SILENCE_SECONDS = 15.0
_BATCH = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Offsets of one partition, from ``start`` up to and without ``stop``."""

    topic: str
    partition: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many offsets it spans."""
        return max(0, self.stop - self.start)


class LogReader:
    """Reads stretches of topics. Belongs to no group that anyone else could disturb."""

    def __init__(self, kafka: Mapping[str, Any]) -> None:
        self._consumer = Consumer(
            {
                **kafka,
                "group.id": "driftline-reader",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",  # retention may take what a stretch begins with
                "fetch.wait.max.ms": 50,
            }
        )

    def __enter__(self) -> Self:
        """Return the reader, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the consumer."""
        self._consumer.close()

    def held(self, topic: str) -> list[Stretch]:
        """Return what each partition of a topic holds now.

        Raises
        ------
        ConfigurationError
            There is no such topic.
        UnavailableError
            The broker does not answer.
        """
        try:
            found = self._consumer.list_topics(topic, timeout=_REQUEST_SECONDS).topics[topic]
            if found.error is not None or not found.partitions:
                raise ConfigurationError(f"there is no topic {topic!r} on this broker")
            return [self._held(topic, partition) for partition in sorted(found.partitions)]
        except KafkaException as error:
            raise UnavailableError(f"the broker does not answer: {error}") from error

    def offset_at(self, held: Stretch, time_ms: int) -> int:
        """Return the first offset of a partition whose record is not older than an instant; its end if none is."""
        where = TopicPartition(held.topic, held.partition, max(0, time_ms))
        try:
            (found,) = self._consumer.offsets_for_times([where], timeout=_REQUEST_SECONDS)
        except KafkaException as error:
            raise UnavailableError(f"the broker does not answer: {error}") from error
        return min(found.offset, held.stop) if found.offset >= 0 else held.stop

    def read(self, stretches: list[Stretch]) -> Iterator[list[Message]]:
        """Yield the messages of stretches, in lists as they come.

        Raises
        ------
        UnavailableError
            The broker falls silent.
        """
        wanted = {(one.topic, one.partition): one for one in stretches if one.length}
        self._consumer.assign(
            [TopicPartition(one.topic, one.partition, one.start) for one in wanted.values()]
        )
        heard = time.monotonic()
        while wanted:
            batch = self._consumer.consume(_BATCH, 0.5)
            if batch:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE_SECONDS:
                raise UnavailableError(f"the broker sent nothing for {_SILENCE_SECONDS:.0f} s")
            good = []
            for message in batch:
                place = (message.topic() or "", message.partition() or 0)
                stretch, error, offset = wanted.get(place), message.error(), message.offset() or 0
                if stretch is None:
                    continue
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        del wanted[place]
                    elif not error.retriable():
                        raise UnavailableError(f"{place[0]}/{place[1]} cannot be read: {error}")
                    continue
                if offset < stretch.stop:
                    good.append(message)
                if offset >= stretch.stop - 1:
                    del wanted[place]
            if good:
                yield good
                heard = time.monotonic()  # what the caller took is no silence of the broker

    def _held(self, topic: str, partition: int) -> Stretch:
        found = self._consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=_REQUEST_SECONDS, cached=False
        )
        if found is None:
            raise UnavailableError(f"the broker does not say what {topic}/{partition} holds")
        return Stretch(topic=topic, partition=partition, start=found[0], stop=found[1])


def where_to_look(reader: LogReader, topic: str, request_id: str) -> Iterator[list[Stretch]]:
    """Yield the places of a topic where a request's records may be, the likely ones first.

    A UUIDv7 says when the request was made: its own partition is looked at from then on. Then that partition from
    its beginning, then the others.
    """
    held = reader.held(topic)
    home = partition_of(request_id, len(held))
    made_ms = id_time_ms(request_id)
    if made_ms is not None:
        start = reader.offset_at(held[home], made_ms - CLOCK_SLACK_MS)
        yield [replace(held[home], start=start)]
    yield [held[home]]
    yield [one for one in held if one.partition != home]
