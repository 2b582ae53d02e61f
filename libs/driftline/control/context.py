"""What a handler gets beside the record: where it comes from, the table, and the way out."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from driftline.control.tables import TableView
from driftline.runtime.errors import ConfigurationError

#: Made once, at random, for the ids of the control plane.
_NAMESPACE = uuid.UUID("5a1d6a5e-5f4d-4c0f-9d55-6f0a1c1e7b42")


def deterministic_id(*cause: str | int) -> str:
    """Return the UUID (version 5) that stands for a cause: the same cause has the same id, always.

    >>> deterministic_id("flights.profiles", 0, 17, "drift") == deterministic_id("flights.profiles", 0, 17, "drift")
    True
    >>> deterministic_id("a", "bc") == deterministic_id("ab", "c")
    False
    """
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(map(str, cause))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A record as it came from Kafka. ``timestamp_ms`` is the record's, since the epoch."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int


Send = Callable[[str, str | bytes | None, Mapping[str, Any]], Awaitable[None]]


class Context:
    """One call of a handler. A handler decides from the record, the table and this alone: it may run again.

    It runs again, with the same record and the same table, where the process ended before its changes were
    written. So it must not look at the wall clock (``timestamp_us`` is the record's time) or at anything random.
    """

    def __init__(self, incoming: Incoming, *, send: Send, table: TableView | None) -> None:
        self.topic = incoming.topic
        self.partition = incoming.partition
        self.offset = incoming.offset
        self.key = incoming.key
        self.headers = incoming.headers
        self.timestamp_us = incoming.timestamp_ms * 1_000
        self._send = send
        self._table = table

    @property
    def table(self) -> TableView:
        """The table that the handler was declared with."""
        if self._table is None:
            raise ConfigurationError(f"the handler of {self.topic} has no table: declare it with table=...")
        return self._table

    def id_of(self, *what: str | int) -> str:
        """Return the id of something that this record causes; name each thing apart where there are several."""
        return deterministic_id(self.topic, self.partition, self.offset, *what)

    async def send(self, topic: str, key: str | bytes | None, record: Mapping[str, Any]) -> None:
        """Send a record to a topic that the app has declared with ``sends``; returns once it is acknowledged.

        A handler that runs again sends again: give the record an ``id_of`` so that readers apply it once.
        """
        await self._send(topic, key, record)
