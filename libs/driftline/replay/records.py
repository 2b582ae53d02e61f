"""Logged records as tables: from the topics, from the archive, or from both.

Both give the same columns: those that a record was written with, in the archive's types, and its partition and offset.
So a model of then finds the columns of then, whatever the project declares now.

With both at hand, each partition's records come from its topic as far back as that reaches, and those before from the
archive: every record once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import or_

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Message
from deltalake import DeltaTable

from driftline.archive.columns import (
    INSTANT,
    OFFSET,
    PARTITION,
    TIMESTAMP,
    ColumnConflictError,
    fitted,
    storage_schema,
)
from driftline.archive.sink import TopicTable
from driftline.archive.tables import TOPICS, Archive, open_table, storage
from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import PREDICTIONS, Topics
from driftline.contracts.wire import HEADER_BYTES, split
from driftline.replay.selection import Selection
from driftline.runtime.errors import BadMessageError, ConfigurationError
from driftline.serving.log_reading import LogReader, Stretch, where_to_look
from driftline.streaming.partitions import Partition

Tell = Callable[[str], None]

_ARCHIVER = "archiver"
_BATCH_ROWS = 10_000


class TopicRecords:
    """Reads streams from their topics, as a committed reader sees them.

    ``unreadable`` counts the records that could not be decoded.
    """

    def __init__(self, reader: LogReader, topics: Topics, registry: SchemaRegistry, tell: Tell) -> None:
        self._reader, self._topics, self._registry, self._tell = reader, topics, registry, tell
        self._decoders: dict[int, tuple[BatchDecoder, pa.Schema]] = {}
        self.unreadable = 0

    def gone(self, stream: str, selection: Selection) -> dict[int, int]:
        """Return the partitions that may have held wanted records and hold them no longer, with their first offsets."""
        held = self._reader.held(self._topics.stream(stream))
        first = {one.partition: self._reader.offset_at(one, selection.logged_from_ms) for one in held}
        return {one.partition: one.start for one in held if 0 < one.start == first[one.partition]}

    def extent(self, stream: str) -> dict[int, tuple[int, int]]:
        """Return the first offset and the next one of each partition of a topic."""
        return {
            one.partition: (one.start, one.stop) for one in self._reader.held(self._topics.stream(stream))
        }

    def between(self, stream: str, offsets: Mapping[int, tuple[int, int]]) -> Iterator[pa.Table]:
        """Yield all records between offsets of partitions, a few thousand at a time."""
        topic = self._topics.stream(stream)
        stretches = [
            Stretch(topic=topic, partition=number, start=start, stop=stop)
            for number, (start, stop) in offsets.items()
        ]
        yield from self._tables(topic, stretches, Selection())

    def read(self, stream: str, selection: Selection) -> Iterator[pa.Table]:
        """Yield the wanted records, a few thousand at a time, in the order of each partition."""
        topic = self._topics.stream(stream)
        if selection.request_id is None:
            yield from self._tables(topic, self._span(stream, topic, selection), selection)
            return
        for stretches in where_to_look(self._reader, topic, selection.request_id):
            found = False
            for table in self._tables(topic, stretches, selection):
                found = True
                yield table
            if found:
                return

    def _span(self, stream: str, topic: str, selection: Selection) -> list[Stretch]:
        until_ms = selection.logged_until_ms if stream == PREDICTIONS else None
        stretches = []
        for held in self._reader.held(topic):
            start = self._reader.offset_at(held, selection.logged_from_ms)
            stop = held.stop if until_ms is None else self._reader.offset_at(held, until_ms)
            stretches.append(Stretch(topic=topic, partition=held.partition, start=start, stop=stop))
        return stretches

    def _tables(self, topic: str, stretches: list[Stretch], selection: Selection) -> Iterator[pa.Table]:
        total, seen = sum(one.length for one in stretches), 0
        key = None if selection.request_id is None else selection.request_id.lower().encode()
        # The key names the request, in whatever letters the record has it.
        wanted_rows = (selection if key is None else replace(selection, request_id=None)).expression
        for messages in self._reader.read(stretches):
            seen += len(messages)
            self._tell(f"Reading {topic}: {seen:,} of {total:,} records")
            wanted = (
                messages if key is None else [one for one in messages if (one.key() or b"").lower() == key]
            )
            for table in self._decoded(wanted):
                chosen = table.filter(wanted_rows)
                if len(chosen):
                    yield chosen

    def _decoded(self, messages: Sequence[Message]) -> Iterator[pa.Table]:
        """Yield messages as tables, one for each schema that they were written with."""
        groups: dict[bytes, list[Message]] = defaultdict(list)
        for message in messages:
            groups[(message.value() or b"")[:HEADER_BYTES]].append(message)
        for header, group in groups.items():
            try:
                decoder, stored = self._decoder(header)
            except (BadMessageError, ConfigurationError, ColumnConflictError):
                self.unreadable += len(group)
                continue
            decoded = decoder.decode([message.value() for message in group])
            self.unreadable += len(decoded.bad)
            good = [group[row] for row in decoded.rows.tolist()]
            table = fitted(pa.Table.from_batches([decoded.table]), stored)
            table = table.append_column(PARTITION, pa.array([one.partition() for one in good], pa.int32()))
            table = table.append_column(OFFSET, pa.array([one.offset() for one in good], pa.int64()))
            logged_us = [one.timestamp()[1] * 1_000 for one in good]
            yield table.append_column(TIMESTAMP, pa.array(logged_us, pa.int64()).cast(INSTANT))

    def _decoder(self, header: bytes) -> tuple[BatchDecoder, pa.Schema]:
        schema_id, _ = split(header)
        if schema_id not in self._decoders:
            decoder = BatchDecoder(self._registry.schema(schema_id), self._registry.schema)
            self._decoders[schema_id] = decoder, storage_schema(decoder.schema)
        return self._decoders[schema_id]


class ArchiveRecords:
    """Reads streams from their Delta tables; needs no server."""

    def __init__(self, archive: Archive, tell: Tell) -> None:
        self._archive, self._tell = archive, tell

    def has(self, stream: str) -> bool:
        """Tell whether there is a table of a stream."""
        return open_table(self._archive.table(TOPICS, stream)) is not None

    def stops(self, stream: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return how far the archive has come: the next offset of each partition, 0 where it has nothing."""
        topic = f"{self._archive.prefix}.{stream}"
        table = TopicTable(self._archive.table(TOPICS, stream), group=self._archive.group(_ARCHIVER))
        found = table.positions([Partition(topic, number) for number in partitions])
        return {one.number: position or 0 for one, position in found.items()}

    def newest_us(self, stream: str, column: str) -> int | None:
        """Return the newest instant of a column, from the table's log; None where that does not say."""
        table = open_table(self._archive.table(TOPICS, stream))
        if table is None:
            return None
        with storage(stream):
            files = pa.table(table.get_add_actions(flatten=True))
        if f"max.{column}" not in files.column_names:
            return None
        newest = pc.max(files[f"max.{column}"].cast(pa.timestamp("us", "UTC")))
        found: int | None = newest.cast(pa.int64()).as_py()
        return found

    def read(
        self, stream: str, selection: Selection, before: Mapping[int, int] | None = None
    ) -> Iterator[pa.Table]:
        """Yield the wanted records, a few thousand at a time; ``before`` bounds the offsets of the named partitions.

        Raises
        ------
        ConfigurationError
            There is no such table.
        """
        chosen = selection.expression
        if before is not None:
            bounds = [
                (pc.field(PARTITION) == number) & (pc.field(OFFSET) < stop) for number, stop in before.items()
            ]
            chosen &= reduce(or_, bounds)
        yield from self.scan(stream, chosen)

    def columns(self, stream: str) -> pa.Schema:
        """Return a table's columns; ConfigurationError where there is no table."""
        with storage(stream):
            return self._table(stream).to_pyarrow_dataset().schema

    def scan(self, stream: str, chosen: pc.Expression) -> Iterator[pa.Table]:
        """Yield the rows of a table for which an expression holds; ConfigurationError where there is no table."""
        seen = 0
        with storage(stream):
            batches = (
                self._table(stream)
                .to_pyarrow_dataset()
                .to_batches(filter=chosen, batch_size=_BATCH_ROWS, batch_readahead=2, fragment_readahead=1)
            )
            for batch in batches:
                if batch.num_rows:
                    seen += batch.num_rows
                    self._tell(f"Reading {stream} from the archive: {seen:,} records")
                    yield pa.Table.from_batches([batch])

    def _table(self, stream: str) -> DeltaTable:
        table = open_table(self._archive.table(TOPICS, stream))
        if table is None:
            raise ConfigurationError(
                f"the archive at {self._archive.root} has no table of {self._archive.prefix}.{stream}; "
                "name the right one with --archive, or start the archiver and let it catch up"
            )
        return table


class Records:
    """Reads streams from what is at hand; ``notes`` tells what a reader of the result has to know."""

    def __init__(self, topic: TopicRecords | None, archive: ArchiveRecords | None) -> None:
        self._topic, self._archive = topic, archive
        self.notes: list[str] = []
        #: Offsets of predictions that neither topic nor archive holds: they may belong to what was asked for.
        self.gaps = 0

    def read(self, stream: str, selection: Selection) -> Iterator[pa.Table]:
        """Yield the wanted records, each once.

        Raises
        ------
        ConfigurationError
            There is neither topic nor table.
        UnavailableError
            Broker, registry or store do not answer.
        """
        if self._topic is None:
            yield from self._archived(stream, selection)
        elif selection.request_id is not None:
            yield from self._request(self._topic, stream, selection)
        else:
            yield from self._before(self._topic, stream, selection)
            yield from self._topic.read(stream, selection)

    def _archived(self, stream: str, selection: Selection) -> Iterator[pa.Table]:
        if self._archive is None:
            raise ValueError("records come from a topic, an archive, or both")
        if stream == PREDICTIONS and selection.stop_us is not None:
            newest = self._archive.newest_us(stream, selection.by)
            if newest is not None and newest < selection.stop_us - 1:
                at = np.datetime64(newest, "us")
                self.notes.append(
                    f"the newest {selection.by} in the archive is {at}Z; what came later is missing here"
                )
        yield from self._archive.read(stream, selection)

    def _request(self, topic: TopicRecords, stream: str, selection: Selection) -> Iterator[pa.Table]:
        found = False
        for table in topic.read(stream, selection):
            found = True
            yield table
        if not found and self._archive is not None and self._archive.has(stream):
            yield from self._archive.read(stream, selection)

    def _before(self, topic: TopicRecords, stream: str, selection: Selection) -> Iterator[pa.Table]:
        """Yield what the topic no longer holds, and note what nothing holds any more."""
        gone = topic.gone(stream, selection)
        if not gone:
            return
        archived = self._archive is not None and self._archive.has(stream)
        stops = self._archive.stops(stream, gone) if self._archive is not None and archived else {}
        for number, start in gone.items():
            if stops.get(number, 0) < start:
                self.gaps += (start - stops.get(number, 0)) * (stream == PREDICTIONS)
                self.notes.append(
                    f"offsets {stops.get(number, 0):,} to {start - 1:,} of {stream}/{number} are in the topic no longer, "
                    "and in no archive that was read: if any of them belong to the span, they are missing here"
                )
        if self._archive is not None and archived:
            yield from self._archive.read(stream, selection, gone)


def batched(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of tables in batches of so many, fewer where the columns change and at the end.

    >>> [len(one) for one in batched([pa.table({"a": [1, 2, 3]}), pa.table({"a": [4, 5]})], 2)]
    [2, 2, 1]
    """
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        if held and not held[0].schema.equals(table.schema):
            yield from _cut(held, rows)
            held, count = [], 0
        held.append(table)
        count += len(table)
        if count >= rows:
            *full, rest = _cut(held, rows)
            if len(rest) == rows:
                full, rest = [*full, rest], rest.slice(rows)
            yield from full
            held, count = [rest], len(rest)
    yield from _cut(held, rows)


def _cut(tables: list[pa.Table], rows: int) -> list[pa.Table]:
    if not tables:
        return []
    whole = pa.concat_tables(tables)
    return [whole.slice(start, rows).combine_chunks() for start in range(0, len(whole), rows)]
