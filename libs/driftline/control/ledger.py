"""Where each partition stands: every visible record is handled once, in order, and none is passed over.

Faust can drop what it has fetched and go on behind it. So the ledger does not believe it: the first event of a
partition must be at the group's committed offset, each next one must follow the last. Where offsets are missing in
between (transaction markers, compaction), the broker is asked whether a record stands there.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol

from driftline.runtime.errors import DriftlineError
from driftline.streaming.partitions import Partition


class SkippedRecordsError(DriftlineError):
    """Records were passed over. Nothing behind them may be handled: the process starts anew from what is committed."""


class Positions(Protocol):
    """What the ledger asks the broker; ``PartitionReader`` has it."""

    def committed(self, partition: Partition) -> int | None:
        """Return the group's committed offset."""
        ...

    def first_visible(self, partition: Partition, offset: int | None) -> int | None:
        """Return the first offset from ``offset`` on that holds a record."""
        ...


@dataclass(slots=True)
class _Entry:
    generation: int
    next_offset: int | None  # None: nothing was ever committed
    handled_at: float = field(default_factory=time.monotonic)


class Ledger:
    """The next offset of each partition, within one generation of the consumer group."""

    def __init__(self, positions: Positions) -> None:
        self._positions = positions
        self._entries: dict[Partition, _Entry] = {}

    async def is_next(self, partition: Partition, offset: int, *, generation: int) -> bool:
        """Whether a record is to be handled now; False where it was already.

        Raises
        ------
        SkippedRecordsError
            A record before it was never handed over.
        OffsetGapError
            A record before it was deleted before it was read.
        """
        entry = self._entries.get(partition)
        if entry is None or entry.generation != generation:
            committed = await asyncio.to_thread(self._positions.committed, partition)
            entry = self._entries[partition] = _Entry(generation, committed)
        expected = entry.next_offset
        if expected == offset:
            return True
        if expected is not None and offset < expected:
            return False
        first = await asyncio.to_thread(self._positions.first_visible, partition, expected)
        if first is not None and first < offset:
            msg = f"{partition}: the record at offset {first} was passed over, {offset} came instead"
            raise SkippedRecordsError(msg)
        return True

    def handled(self, partition: Partition, offset: int) -> None:
        """Note that a record is done with."""
        entry = self._entries[partition]
        entry.next_offset, entry.handled_at = offset + 1, time.monotonic()

    def next_offset(self, partition: Partition, *, generation: int) -> int | None:
        """Return the offset behind the last record that was handled in this generation; None where none was."""
        entry = self._entries.get(partition)
        return entry.next_offset if entry is not None and entry.generation == generation else None
