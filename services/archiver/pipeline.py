"""Every topic into its Delta table, exactly once: decode, hold until it is worth a commit, commit.

1. Taken on: a partition starts where its table's log stands.
2. Messages are held in memory, with the span of offsets that they cover, and decoded to columns by the thousand.
3. A topic is committed when its oldest record has waited long enough, when many are held, and on the way out.
   The bad records' table first: they are written by offset and come in once however often they are sent.
   Then the topic's own, rows and offsets in one commit (``archive.sink`` has that protocol).
4. Failed: what is held of the topic is dropped, its partitions start anew at 1. Until then messages of theirs are
   dropped too; they come again.
5. Revoked: what is held of the partition is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from confluent_kafka import Message

from driftline.archive.columns import PLACE, ColumnConflictError, fitted, united
from driftline.archive.sink import Span, TopicTable
from driftline.runtime import metrics
from driftline.runtime.errors import LostOwnershipError, UnavailableError
from driftline.runtime.logging import get_logger
from driftline.runtime.metrics import ARCHIVE_COMMITS, ARCHIVED_BAD, ARCHIVED_ROWS
from driftline.streaming.loop import LOST_OWNERSHIP_SECONDS
from driftline.streaming.partitions import Partition, PartitionBatch
from services.archiver.decoding import Decoder

SERVICE = "archiver"

_log = get_logger(__name__)
_AGAIN_SECONDS = 2.0
_DECODED_ROWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """A topic: how its messages are decoded, its table, and that of its bad records."""

    topic: str
    decoder: Decoder
    table: TopicTable
    bad: TopicTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a topic is committed: after so many seconds, at so many rows of it, at so many bytes of all."""

    seconds: float
    rows: int
    size: int


@dataclass(slots=True)
class _Held:
    """What is held of a partition: messages from ``start`` (None: from the beginning) up to and without ``stop``.

    The newest are still ``raw``: decoding thousands at once costs little more than decoding one.
    """

    start: int | None
    stop: int | None = None
    since: float = 0.0
    rows: int = 0
    size: int = 0
    raw: list[Message] = field(default_factory=list)
    good: list[pa.Table] = field(default_factory=list)
    bad: list[pa.Table] = field(default_factory=list)

    def add(self, batch: PartitionBatch) -> None:
        if self.stop is None:
            self.since = time.monotonic()
        self.stop = batch.next_offset
        self.rows += len(batch.messages)
        self.size += sum(len(value) for value in batch.values if value is not None)
        self.raw += batch.messages

    def take_raw(self, partition: Partition) -> PartitionBatch:
        """Return the messages that are not decoded yet as one batch."""
        messages, self.raw = self.raw, []
        return PartitionBatch(partition=partition, messages=messages, next_offset=self.stop or 0)


class ArchiverPipeline:
    """The steps from messages to Delta tables (a ``driftline.streaming.loop.Pipeline``)."""

    def __init__(self, feeds: Mapping[str, Feed], limits: Limits) -> None:
        self._feeds = feeds
        self._limits = limits
        self._held: dict[Partition, _Held] = {}
        self._columns: dict[str, pa.Schema] = {}
        self._anew: dict[Partition, float] = {}

    @property
    def owned(self) -> frozenset[Partition]:
        """The partitions that this process writes."""
        return frozenset(self._held)

    def positions(self, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        """Take partitions on; each starts where its table's log stands (1)."""
        found: dict[Partition, int | None] = {}
        for topic in dict.fromkeys(partition.topic for partition in partitions):
            table = self._feeds[topic].table
            found |= table.positions(one for one in partitions if one.topic == topic)
            self._columns[topic] = table.columns()
        for partition, position in found.items():
            self._held[partition] = _Held(position)
            self._anew.pop(partition, None)
        return found

    def process(self, batches: Sequence[PartitionBatch]) -> None:
        """Hold batches (2); commit the topics of which much is held."""
        for batch in batches:
            held = self._held.get(batch.partition)
            if held is None:
                continue  # (4)
            held.add(batch)
            if len(held.raw) >= _DECODED_ROWS:
                self._decode(batch.partition, held)
        for topic in {batch.partition.topic for batch in batches}:
            if sum(held.rows for _, held in self._of(topic)) >= self._limits.rows:
                self._commit(topic)
        if sum(held.size for held in self._held.values()) >= self._limits.size:
            self.flush()

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what is held of partitions (5)."""
        for partition in partitions:
            self._held.pop(partition, None)
            self._anew.pop(partition, None)

    def idle(self) -> dict[Partition, float]:
        """Commit the topics whose records have waited long enough; return the partitions that start anew."""
        oldest = time.monotonic() - self._limits.seconds
        for topic in self._feeds:
            if any(held.since <= oldest for _, held in self._of(topic)):
                self._commit(topic)
        anew, self._anew = self._anew, {}
        return anew

    def flush(self) -> None:
        """Commit everything that is held."""
        for topic in self._feeds:
            self._commit(topic)

    def _decode(self, partition: Partition, held: _Held) -> None:
        if not held.raw:
            return
        topic = partition.topic
        with metrics.STEP_SECONDS.labels("decode").time():
            rows = self._feeds[topic].decoder.decode(held.take_raw(partition), self._columns[topic])
        for table in rows.good:
            self._columns[topic] = united(self._columns[topic], table.schema)
        held.good += rows.good
        held.bad += [rows.bad] if len(rows.bad) else []

    def _of(self, topic: str) -> list[tuple[Partition, _Held]]:
        """Return what is held of a topic."""
        return [
            (partition, held)
            for partition, held in self._held.items()
            if partition.topic == topic and held.stop is not None
        ]

    def _commit(self, topic: str) -> None:
        """Commit a topic (3); where that fails its partitions start anew (4)."""
        held = self._of(topic)
        if not held:
            return
        try:
            for partition, one in held:
                self._decode(partition, one)
            with metrics.STEP_SECONDS.labels("commit").time():
                self._write(self._feeds[topic], held)
        except (LostOwnershipError, UnavailableError, ColumnConflictError) as error:
            lost = isinstance(error, LostOwnershipError)
            ARCHIVE_COMMITS.labels(topic, "lost" if lost else "failed").inc()
            _log.warning("not archived; starting anew", topic=topic, error=str(error))
            for partition, _ in held:
                del self._held[partition]
                self._anew[partition] = LOST_OWNERSHIP_SECONDS if lost else _AGAIN_SECONDS
        else:
            ARCHIVE_COMMITS.labels(topic, "done").inc()
            for partition, one in held:
                self._held[partition] = _Held(one.stop)

    @staticmethod
    def _write(feed: Feed, held: Sequence[tuple[Partition, _Held]]) -> None:
        bad = [table for _, one in held for table in one.bad]
        if bad:
            rows = pa.concat_tables(bad)
            feed.bad.append_missing(feed.topic, rows)
        good = [table for _, one in held for table in one.good]
        schema = PLACE
        for table in good:
            schema = united(schema, table.schema)
        spans = [
            Span(partition=partition, start=one.start, stop=one.stop)
            for partition, one in held
            if one.stop is not None
        ]
        together = pa.concat_tables([schema.empty_table(), *(fitted(table, schema) for table in good)])
        feed.table.append(together, spans)
        ARCHIVED_ROWS.labels(feed.topic).inc(len(together))
        for table in bad:
            for stage in table["stage"].to_pylist():
                ARCHIVED_BAD.labels(feed.topic, stage).inc()
