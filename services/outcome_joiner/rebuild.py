"""Build the waiting room anew from its topics, up to what the group has committed: for a Redis that was emptied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from driftline.runtime.errors import UnavailableError
from driftline.runtime.logging import get_logger
from driftline.streaming.partitions import Partition, PartitionBatch
from services.outcome_joiner.pipeline import Sides
from services.outcome_joiner.waiting_room import WaitingRoom

_log = get_logger(__name__)
_BATCH = 10_000
_POLL_SECONDS = 1.0
#: A partition that brings nothing for so long, though it should, makes the rebuild fail (and begin again).
_SILENCE_SECONDS = 30


def rebuild(
    room: WaitingRoom,
    sides: Sides,
    kafka: Mapping[str, Any],
    *,
    owner: str,
    committed: Mapping[Partition, int | None],
    progress: Callable[[], None],
) -> None:
    """Apply every record below the committed offsets to an emptied room; their outcomes were sent long ago.

    ``progress`` is called after each batch: this may take many minutes. What it raises ends the rebuild.

    Raises
    ------
    UnavailableError
        Another member rebuilds, or a server does not answer: ask again later.
    """
    if not room.begin_rebuild(owner):
        raise UnavailableError("another member builds the waiting room anew")
    rows = sum(position or 0 for position in committed.values())
    _log.warning("the waiting room is not whole; building it anew from the topics", records=rows)
    whole = False
    try:
        # Labels first: a prediction then finds its newest label at once.
        for partition in sorted(committed, reverse=True, key=lambda one: one.topic == sides.labels):
            room.extend_rebuild([sides.place(partition)])
            for batch in _batches(kafka, partition, committed[partition] or 0):
                found, _ = sides.rows(batch)
                room.extend_rebuild([])
                room.apply(sides.place(partition), found, batch.next_offset)
                progress()
        whole = True
    finally:
        room.end_rebuild(whole=whole)
    _log.info("the waiting room is whole again", records=rows)


def _batches(kafka: Mapping[str, Any], partition: Partition, end: int) -> Iterator[PartitionBatch]:
    """Yield a partition's records from its oldest up to ``end``, exclusive."""
    if not end:
        return
    config = {
        **kafka,
        "group.id": "driftline-rebuild",  # never joined: partitions are assigned
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
    }
    try:
        with closing(Consumer(config)) as consumer:
            low, _ = consumer.get_watermark_offsets(TopicPartition(*partition), timeout=10.0)
            consumer.assign([TopicPartition(partition.topic, partition.number, low)])
            silent = 0
            while True:
                messages = consumer.consume(_BATCH, _POLL_SECONDS)
                good = [message for message in messages if message.error() is None]
                wanted = [message for message in good if _offset(message) < end]
                if wanted:
                    yield PartitionBatch(
                        partition=partition, messages=wanted, next_offset=_offset(wanted[-1]) + 1
                    )
                reached = consumer.position([TopicPartition(*partition)])[0].offset
                if reached >= end or len(wanted) < len(good) or len(good) < len(messages):
                    yield PartitionBatch(partition=partition, messages=[], next_offset=end)
                    return
                silent = 0 if messages else silent + 1
                if silent > _SILENCE_SECONDS / _POLL_SECONDS:
                    raise UnavailableError(f"{partition}: the broker sends nothing up to offset {end}")
    except KafkaException as error:
        raise UnavailableError(f"{partition} cannot be read for the rebuild: {error}") from error


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None  # noqa: S101  a message without an error has one
    return offset
