"""The past of a partition for a backfill: from its topic, and from the archive what the topic no longer holds.

Offset by offset in the log's order, decoded as the live stream decodes it, a batch at a time. One partition is read at a
time. Bad records are passed over: the live stream has told of them.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from numpy.typing import NDArray

from driftline.archive.columns import OFFSET, PARTITION, TIMESTAMP
from driftline.archive.sink import TopicTable
from driftline.archive.tables import TOPICS, Archive, open_table, storage
from driftline.contracts.arrow_types import arrow_schema
from driftline.contracts.batch_codec import BatchDecoder
from driftline.runtime.errors import UnavailableError
from driftline.streaming.partitions import Partition

_ARCHIVER = "archiver"
#: The archive is asked for so many offsets at a time; its files are not in the log's order.
_ARCHIVED_OFFSETS = 50_000
_WAIT_SECONDS = 0.05
#: The past waits in the client beside what the live stream has there: less of it.
_LITTLE = {
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 16 << 10,
    "fetch.wait.max.ms": 50,
    "fetch.error.backoff.ms": 20,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Consecutive records of a partition: the good ones as columns, with their records' timestamps.

    ``next_offset`` follows the last of them, ``gone`` counts those that nothing holds any more.
    """

    table: pa.RecordBatch
    record_us: NDArray[np.int64]
    next_offset: int
    gone: int = 0


class Past(Protocol):
    """Reads what a partition's log held."""

    def first(self, partition: Partition) -> int:
        """Return the oldest offset that there is something of."""
        ...

    def read(self, partition: Partition, decoder: BatchDecoder, offset: int, stop: int) -> Stretch:
        """Return the next records from an offset on, none at or beyond ``stop``; perhaps none yet."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class PastEvents:
    """Reads the past of partitions (a ``Past``).

    Parameters
    ----------
    oldest
        Says the oldest offset that a partition's topic holds.
    schemas
        The event types' schemas, by topic: what older records lack has their defaults.
    archive
        Where older records are; None: nowhere.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        oldest: Callable[[Partition], int],
        *,
        schemas: Mapping[str, Mapping[str, Any]],
        archive: Archive | None,
        max_batch: int,
    ) -> None:
        self._topic = _TopicPast(kafka, max_batch=max_batch)
        self._archive = None if archive is None else _ArchivePast(archive, schemas, max_batch=max_batch)
        self._oldest = oldest

    def first(self, partition: Partition) -> int:
        """Return the oldest offset that there is something of."""
        low = self._oldest(partition)
        return 0 if low and self._archived(partition) else low

    def read(self, partition: Partition, decoder: BatchDecoder, offset: int, stop: int) -> Stretch:
        """Return the next records from an offset on, none at or beyond ``stop``; perhaps none yet.

        Raises
        ------
        UnavailableError
            Broker, registry or the archive's store do not answer.
        """
        if self._topic.stands_at(partition, offset):
            found = self._topic.read(decoder, stop)
            if found is not None:
                return found
        if self._archive is not None and (held := self._archive.held(partition, offset)) is not None:
            return held
        low = self._oldest(partition)
        if offset >= low:
            self._topic.start(partition, offset)
            return self._topic.read(decoder, stop) or _nothing(decoder, offset)
        until = min(low, stop)
        if self._archive is not None:
            return self._archive.read(partition, decoder, offset, until)
        return _nothing(decoder, until, gone=until - offset)

    def close(self) -> None:
        """Close the consumer."""
        self._topic.close()
        if self._archive is not None:
            self._archive.close()

    def _archived(self, partition: Partition) -> int:
        return 0 if self._archive is None else self._archive.stop(partition)


class _TopicPast:
    """Reads one partition of a topic at a time, as a committed reader; belongs to no group."""

    def __init__(self, kafka: Mapping[str, Any], *, max_batch: int) -> None:
        self._config = {
            **kafka,
            **_LITTLE,
            "group.id": "driftline-reader",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
        }
        self._max_batch = max_batch
        self._consumer: Consumer | None = None
        self._at: tuple[Partition, int] | None = None

    def stands_at(self, partition: Partition, offset: int) -> bool:
        return self._at == (partition, offset)

    def start(self, partition: Partition, offset: int) -> None:
        if self._consumer is None:
            self._consumer = Consumer(self._config)
        self._consumer.assign([TopicPartition(partition.topic, partition.number, offset)])
        self._at = partition, offset

    def read(self, decoder: BatchDecoder, stop: int) -> Stretch | None:
        """Return what there is before ``stop``; None where the topic no longer holds the next record."""
        assert self._consumer is not None and self._at is not None  # noqa: S101  start() comes first
        partition, offset = self._at
        try:
            messages = self._consumer.consume(1, _WAIT_SECONDS)
            if messages and self._max_batch > 1:
                messages += self._consumer.consume(self._max_batch - 1, 0)
        except KafkaException as error:
            raise UnavailableError(f"{partition}: the past cannot be read: {error}") from error
        good, reached = [], offset
        for message in messages:
            wrong = message.error()
            if wrong is None:
                good.append(message)
                reached = (message.offset() or 0) + 1
            elif wrong.code() == KafkaError._PARTITION_EOF:
                reached = max(reached, message.offset() or 0)
            elif wrong.code() == KafkaError._AUTO_OFFSET_RESET:
                self._at = None
                return None
            elif not wrong.retriable():
                self._at = None
                raise UnavailableError(f"{partition}: the past cannot be read: {wrong}")
        self._at = partition, reached
        inside = [message for message in good if (message.offset() or 0) < stop]
        return _decoded(inside, decoder, min(reached, stop))

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        self._at = None


def _decoded(messages: list[Message], decoder: BatchDecoder, next_offset: int) -> Stretch:
    decoded = decoder.decode([message.value() for message in messages])
    stamps_ms = np.array([message.timestamp()[1] for message in messages], np.int64)
    return Stretch(table=decoded.table, record_us=stamps_ms[decoded.rows] * 1_000, next_offset=next_offset)


def _nothing(decoder: BatchDecoder, next_offset: int, *, gone: int = 0) -> Stretch:
    table = pa.RecordBatch.from_pylist([], schema=decoder.schema)
    return Stretch(table=table, record_us=np.empty(0, np.int64), next_offset=next_offset, gone=gone)


class _ArchivePast:
    """Reads one partition of a topic's Delta table at a time, in the order of offsets.

    The table is read on a thread of its own, so that a slow store does not hold up the live stream.
    """

    def __init__(self, archive: Archive, schemas: Mapping[str, Mapping[str, Any]], *, max_batch: int) -> None:
        self._archive = archive
        self._defaults = {topic: _defaults(schema) for topic, schema in schemas.items()}
        self._max_batch = max_batch
        self._of: tuple[Partition, int] | None = None
        self._batches: Iterator[Stretch] = iter(())
        self._thread = ThreadPoolExecutor(1, "archive")
        self._asked: tuple[Partition, int] | None = None
        self._answer: Future[tuple[int, pa.Table]] | None = None

    def stop(self, partition: Partition) -> int:
        """Return how far the archive has come: its next offset, 0 where it has nothing."""
        table = TopicTable(self._uri(partition), group=self._archive.group(_ARCHIVER))
        return table.positions([partition])[partition] or 0

    def held(self, partition: Partition, offset: int) -> Stretch | None:
        """Return the next rows where those before them were read; None where the table must be asked."""
        found = next(self._batches, None) if self._of == (partition, offset) else None
        self._of = None if found is None else (partition, found.next_offset)
        return found

    def read(self, partition: Partition, decoder: BatchDecoder, offset: int, until: int) -> Stretch:
        """Return the next rows from an offset on, none at or beyond ``until``; none yet while the table is read.

        What the table does not have, up to there, is gone.
        """
        if self._answer is None or self._asked != (partition, offset):
            self._asked = partition, offset
            self._answer = self._thread.submit(self._rows, partition, offset, until)
        if not wait([self._answer], _WAIT_SECONDS).done:
            return _nothing(decoder, offset)
        answer, self._answer = self._answer, None
        stop, rows = answer.result()
        if stop <= offset:
            return _nothing(decoder, until, gone=until - offset)
        self._batches = self._cut(partition, decoder, rows, stop)
        found = next(self._batches)
        self._of = partition, found.next_offset
        return found

    def close(self) -> None:
        """End the thread, once it has read what it reads."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _cut(
        self, partition: Partition, decoder: BatchDecoder, rows: pa.Table, stop: int
    ) -> Iterator[Stretch]:
        for start in range(0, max(1, len(rows)), self._max_batch):
            some = rows.slice(start, self._max_batch)
            last = start + self._max_batch >= len(rows)
            next_offset = stop if last else some[OFFSET][-1].as_py() + 1
            stamps = some[TIMESTAMP].cast(pa.int64()).to_numpy()
            table = _as_decoded(some, decoder.schema, self._defaults[partition.topic])
            yield Stretch(table=table, record_us=stamps, next_offset=next_offset)

    def _rows(self, partition: Partition, offset: int, until: int) -> tuple[int, pa.Table]:
        """Return how far the table was read, and its rows from an offset up to there, in order."""
        stop = min(until, offset + _ARCHIVED_OFFSETS, self.stop(partition))
        table = open_table(self._uri(partition)) if stop > offset else None
        if table is None:
            return offset, pa.table({})
        chosen = (
            (pc.field(PARTITION) == partition.number)
            & (pc.field(OFFSET) >= offset)
            & (pc.field(OFFSET) < stop)
        )
        with storage(self._uri(partition)):
            return stop, table.to_pyarrow_dataset().to_table(filter=chosen).sort_by(OFFSET)

    def _uri(self, partition: Partition) -> str:
        return self._archive.table(TOPICS, self._archive.stream(partition.topic))


def _defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of the fields that are never null."""
    nullable = {field.name: field.nullable for field in arrow_schema(schema)}
    return {
        field["name"]: field["default"]
        for field in schema["fields"]
        if "default" in field and not nullable[field["name"]]
    }


def _as_decoded(rows: pa.Table, schema: pa.Schema, defaults: Mapping[str, Any]) -> pa.RecordBatch:
    """Return archived rows with the types and defaults that decoding the records would have given them.

    A null of a field that has no null means that the record was written before the field came into being.
    """
    columns = []
    for field in schema:
        column = rows[field.name] if field.name in rows.column_names else pa.nulls(len(rows))
        try:
            column = column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            msg = f"the archive's column {field.name!r} does not fit the schema that the project declares: {error}"
            raise UnavailableError(msg) from error
        if field.name in defaults and column.null_count:
            column = pc.fill_null(column, pa.scalar(defaults[field.name], field.type))
        columns.append(_one_chunk(column))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(found, pa.ChunkedArray):
        return pa.concat_arrays(found.chunks) if found.num_chunks else pa.array([], found.type)
    return found
