"""Tables: small keyed state in memory, kept in a compacted changelog topic.

A table has one state per partition, and one input record changes it in one step: all changed keys and the
*watermark* (the topic and offset of that record) are one batch of the changelog, which the broker takes whole or
not at all. So after a crash either all of a record's changes are there, or none, and which it is, is known.

- A key's value is ``{"topic": ..., "offset": ..., "state": ...}``: the record that changed it last.
- The watermark is one changelog record per input topic, ``\\x00<topic>`` -> ``{"offset": ...}``. A table with several
  input topics has a watermark for each. Their partition n is the table's partition n, so they must have equally many.
- Values are read back in order. One that is older than the watermark was written by a process that no longer
  owned the partition, and is passed over.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from confluent_kafka import Message

from driftline.control.outbox import Outbox
from driftline.runtime.errors import OffsetGapError
from driftline.runtime.logging import get_logger
from driftline.streaming.partitions import Partition

_log = get_logger(__name__)
_WATERMARK = "\x00"


class Changelogs(Protocol):
    """Where states are read from; ``PartitionReader`` has it."""

    def read_all(self, partition: Partition) -> Iterator[Message]:
        """Yield every record of a partition."""
        ...

    def end(self, partition: Partition) -> int:
        """Return the offset behind the last record."""
        ...


@dataclass(frozen=True, slots=True)
class Value:
    """A key's state as JSON, with the topic and offset of the record that it includes last."""

    topic: str
    offset: int
    state: bytes


class PartitionState:
    """The state of one partition of a table."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.watermarks: dict[str, int] = {}

    def includes(self, topic: str, offset: int) -> bool:
        """Whether the state holds what a record changed."""
        return offset <= self.watermarks.get(topic, -1)

    def replay(self, key: bytes, value: bytes | None) -> None:
        """Apply one record of the changelog."""
        name = key.decode()
        if value is None:
            self.values.pop(name, None)
            return
        found = orjson.loads(value)
        if name.startswith(_WATERMARK):
            topic = name.removeprefix(_WATERMARK)
            self.watermarks[topic] = max(found["offset"], self.watermarks.get(topic, -1))
        elif not self.includes(found["topic"], found["offset"]):
            self.values[name] = Value(found["topic"], found["offset"], orjson.dumps(found["state"]))

    def changes(
        self, topic: str, offset: int, staged: Mapping[str, bytes | None]
    ) -> list[tuple[bytes, bytes | None]]:
        """Return the changelog records of one input record's changes, the watermark last."""
        records: list[tuple[bytes, bytes | None]] = []
        for key, state in staged.items():
            shown = {"topic": topic, "offset": offset, "state": orjson.Fragment(state or b"")}
            records.append((key.encode(), None if state is None else orjson.dumps(shown)))
        records.append(((_WATERMARK + topic).encode(), orjson.dumps({"offset": offset})))
        return records

    def apply(self, topic: str, offset: int, staged: Mapping[str, bytes | None]) -> None:
        """Take over what the changelog has acknowledged."""
        for key, state in staged.items():
            if state is None:
                self.values.pop(key, None)
            else:
                self.values[key] = Value(topic, offset, state)
        self.watermarks[topic] = offset


class TableView:
    """What a handler sees of a table: its own partition, with its changes staged until it has returned.

    Keys are texts, states are JSON values. What ``get`` returns is the handler's own copy.
    """

    def __init__(self, state: PartitionState) -> None:
        self._state = state
        self._staged: dict[str, bytes | None] = {}

    @property
    def staged(self) -> Mapping[str, bytes | None]:
        """Changed keys with their new states as JSON; None for deleted ones."""
        return self._staged

    def get(self, key: str, default: Any = None) -> Any:
        """Return the state of a key, or ``default``."""
        encoded = self._encoded(key)
        return default if encoded is None else orjson.loads(encoded)

    def put(self, key: str, state: Any) -> None:
        """Set the state of a key: JSON types only, other than null; TypeError for anything else."""
        if state is None or not key or key.startswith(_WATERMARK):
            raise ValueError(
                f"a table takes no empty key and no null state ({key!r}); delete() removes a key"
            )
        self._staged[key] = orjson.dumps(state)

    def delete(self, key: str) -> None:
        """Remove a key; harmless where there is none."""
        if self._encoded(key) is not None:
            self._staged[key] = None

    def items(self) -> list[tuple[str, Any]]:
        """Return all keys of this partition with their states, in the order of the keys."""
        keys = sorted(self._state.values.keys() | self._staged.keys())
        return [(key, orjson.loads(found)) for key in keys if (found := self._encoded(key)) is not None]

    def offset_of(self, key: str) -> tuple[str, int] | None:
        """Return the topic and offset of the last record that a key's state includes; None where there is none."""
        value = self._state.values.get(key)
        return None if value is None else (value.topic, value.offset)

    def _encoded(self, key: str) -> bytes | None:
        if key in self._staged:
            return self._staged[key]
        value = self._state.values.get(key)
        return None if value is None else value.state


class Tables:
    """The states of the partitions that this process owns, read from their changelogs when first needed."""

    def __init__(self, changelogs: Changelogs, outbox: Outbox, *, topic_of: Mapping[str, str]) -> None:
        self._changelogs = changelogs
        self._outbox = outbox
        self._topic_of = topic_of
        self._generation = -1
        self._states: dict[tuple[str, int], PartitionState] = {}

    async def state(self, table: str, partition: int, *, generation: int) -> PartitionState:
        """Return a partition's state; a new generation of the group reads it anew."""
        if generation != self._generation:
            self._states.clear()
            self._generation = generation
        key = (table, partition)
        if key not in self._states:
            self._states[key] = await asyncio.to_thread(self._load, table, partition)
        return self._states[key]

    async def commit(
        self, table: str, partition: int, state: PartitionState, *, topic: str, offset: int, view: TableView
    ) -> None:
        """Write what a handler has changed, then let the next one see it."""
        records = state.changes(topic, offset, view.staged)
        await self._outbox.append(self._topic_of[table], partition, records)
        state.apply(topic, offset, view.staged)

    def _load(self, table: str, partition: int) -> PartitionState:
        state = PartitionState()
        changelog = Partition(self._topic_of[table], partition)
        for message in self._changelogs.read_all(changelog):
            state.replay(message.key() or b"", message.value())
        for topic, offset in state.watermarks.items():
            self._check(changelog, Partition(topic, partition), offset)
        _log.info("table read", changelog=str(changelog), keys=len(state.values), includes=state.watermarks)
        return state

    def _check(self, changelog: Partition, source: Partition, offset: int) -> None:
        end = self._changelogs.end(source)
        if offset >= end:
            msg = (
                f"{changelog} includes offset {offset} of {source}, which ends at {end}: that topic was made anew or has "
                f"lost records. Delete the changelog topic to start the table from what the topic holds"
            )
            raise OffsetGapError(msg)
