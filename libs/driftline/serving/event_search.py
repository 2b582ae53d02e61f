"""Find the events of some entities that were there when a prediction was made: newest first, and not for ever."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Message

from driftline.contracts.batch_codec import BatchDecoder
from driftline.project import EventType
from driftline.serving.log_reading import LogReader

PARTITION, OFFSET = "__partition", "__offset"
#: Records read back at a time from a partition, and in all of a topic.
_BLOCK = 20_000
MAX_RECORDS = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundEvents:
    """Events with the columns of their schema, and the partition and offset of each; each event id once.

    ``finished`` says that the search went back as far as it was asked to; ``whole``, that it saw everything
    the topic still holds from before the instant.
    """

    table: pa.Table
    finished: bool
    whole: bool


def find_events(
    reader: LogReader,
    decoder: BatchDecoder,
    event_type: EventType,
    topic: str,
    wanted: Mapping[str, Sequence[str]],
    *,
    since_ms: int,
    before_ms: int,
    max_records: int = MAX_RECORDS,
) -> FoundEvents:
    """Return the events in which one of the ``wanted`` fields has one of its values.

    Looks at records with timestamps from ``since_ms`` to ``before_ms``, going back from the newest.
    """
    held = reader.held(topic)
    pending = {one.partition: replace(one, stop=reader.offset_at(one, before_ms + 1)) for one in held}
    first = {one.partition: reader.offset_at(one, since_ms) for one in held}
    oldest = {one.partition: one.start for one in held}
    tables: list[pa.Table] = []
    left = max_records
    while left > 0 and any(pending[number].stop > first[number] for number in pending):
        blocks = [
            replace(one, start=max(first[one.partition], one.stop - _BLOCK))
            for one in pending.values()
            if one.stop > first[one.partition]
        ]
        tables += [_kept(decoder, messages, wanted) for messages in reader.read(blocks)]
        left -= sum(block.length for block in blocks)
        pending.update(
            {
                block.partition: replace(block, start=first[block.partition], stop=block.start)
                for block in blocks
            }
        )
    table = pa.concat_tables([_empty(decoder), *tables])
    finished = all(one.stop <= first[number] for number, one in pending.items())
    whole = all(one.stop <= oldest[number] for number, one in pending.items())
    return FoundEvents(table=_once(table, event_type), finished=finished, whole=whole)


def _kept(decoder: BatchDecoder, messages: list[Message], wanted: Mapping[str, Sequence[str]]) -> pa.Table:
    decoded = decoder.decode([message.value() for message in messages])
    rows = decoded.rows.tolist()
    mask = np.zeros(len(rows), np.bool_)
    for field, values in wanted.items():
        found = pc.is_in(decoded.table.column(field), value_set=pa.array(list(values), pa.string()))
        mask |= found.to_numpy(zero_copy_only=False)
    places = {
        PARTITION: pa.array([messages[row].partition() for row in rows], pa.int64()),
        OFFSET: pa.array([messages[row].offset() for row in rows], pa.int64()),
    }
    table = pa.Table.from_batches([decoded.table])
    for name, column in places.items():
        table = table.append_column(name, column)
    return table.filter(pa.array(mask))


def _empty(decoder: BatchDecoder) -> pa.Table:
    schema = decoder.schema.append(pa.field(PARTITION, pa.int64())).append(pa.field(OFFSET, pa.int64()))
    return pa.Table.from_batches([], schema=schema)


def _once(table: pa.Table, event_type: EventType) -> pa.Table:
    """Return the events in the order of their offsets, a repeated one only where it came first."""
    ordered = table.sort_by([(PARTITION, "ascending"), (OFFSET, "ascending")])
    seen: set[str] = set()
    first = []
    for row, event_id in enumerate(ordered.column(event_type.event_id).to_pylist()):
        if event_id not in seen:
            seen.add(event_id)
            first.append(row)
    return ordered.take(pa.array(first, pa.int64()))
