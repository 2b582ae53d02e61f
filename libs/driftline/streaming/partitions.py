"""A partition of a topic, and what a poll brought of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from confluent_kafka import Message


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        """Return the partition as operators write it, like ``flights.arrivals/3``."""
        return f"{self.topic}/{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionBatch:
    """Consecutive messages of one partition; ``next_offset`` follows the last of them."""

    partition: Partition
    messages: Sequence[Message]
    next_offset: int

    @property
    def values(self) -> list[bytes | None]:
        """The messages' values in order."""
        return [message.value() for message in self.messages]

    @property
    def timestamps_ms(self) -> list[int]:
        """The messages' record timestamps in order, milliseconds since the epoch."""
        return [message.timestamp()[1] for message in self.messages]
