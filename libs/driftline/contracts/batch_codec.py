"""Thousands of framed Avro values to one Arrow batch and back, strictly, without a Python step per field.

pyruhvro is fast but lenient (it lets trailing bytes, broken text and numbers beyond their type through) and fails a
whole batch for one bad row. So a decoded batch is encoded again and compared byte by byte; what does not come
out the same is cut up until the rows in doubt stand alone, and RecordCodec has the last word on each.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro
from numpy.typing import NDArray

from driftline.contracts.arrow_types import arrow_schema, columnar, has_times
from driftline.contracts.arrow_values import for_columns, from_columns
from driftline.contracts.avro_types import normal_form
from driftline.contracts.projection import projection
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.record_writer import record_writer
from driftline.contracts.strict_bytes import RANGES
from driftline.contracts.wire import HEADER_BYTES, MAGIC, MAX_MESSAGE_BYTES, frame, split
from driftline.runtime.errors import BadMessageError, ConfigurationError

#: A batch in doubt is cut into so many spans, and those again, until a span has so few rows.
_SPANS = 16
_FEW = 48
#: From so many records on columns are encoded faster: than RecordWriter writes them, and than RecordCodec.
_MANY_WRITTEN, _MANY_CODED = 128, 12
_PANIC = "PanicException"
_HEADER = itemgetter(slice(0, HEADER_BYTES))
_BODY = itemgetter(slice(HEADER_BYTES, None))

Resolve = Callable[[int], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A value that could not be decoded, by its position in the input."""

    index: int
    error: BadMessageError


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedBatch:
    """The good rows as columns of the reader's schema, their positions in the input, and the bad rows."""

    table: pa.RecordBatch
    rows: NDArray[np.int64]
    bad: tuple[BadRow, ...]


class BatchDecoder:
    """Decodes framed values to the reader's columns, whatever compatible schema they were written with.

    ``resolve`` gives the schema of an id and raises BadMessageError for an unknown one.
    """

    def __init__(self, reader_schema: Mapping[str, Any], resolve: Resolve) -> None:
        self._resolve = resolve
        self._codec = RecordCodec(reader_schema)
        self._writers: dict[int, _WriterDecoder] = {}
        self.schema = arrow_schema(reader_schema)

    def decode(self, values: Sequence[bytes | None]) -> DecodedBatch:
        """Decode values, each with its five-byte header; bad ones are isolated, the others go through."""
        groups, bad = _grouped(values)
        parts: list[_Part] = []
        for header, (positions, bodies) in groups.items():
            try:
                writer = self._writer(int.from_bytes(header[1:], "big"))
            except BadMessageError as error:
                bad += [BadRow(index=index, error=error) for index in positions.tolist()]
                continue
            parts += writer.decode(bodies, positions)
        for part in parts:
            bad += part.bad
        bad.sort(key=lambda row: row.index)
        return DecodedBatch(**self._together([part for part in parts if len(part.rows)]), bad=tuple(bad))

    def _together(self, parts: "list[_Part]") -> dict[str, Any]:
        if not parts:
            return {
                "table": pa.RecordBatch.from_pylist([], schema=self.schema),
                "rows": np.empty(0, np.int64),
            }
        if len(parts) == 1:
            return {"table": parts[0].table, "rows": parts[0].rows}
        table = pa.Table.from_batches([part.table for part in parts]).combine_chunks().to_batches()[0]
        rows = np.concatenate([part.rows for part in parts])
        if np.all(rows[1:] > rows[:-1]):
            return {"table": table, "rows": rows}
        order = np.argsort(rows, kind="stable")
        return {"table": table.take(pa.array(order)), "rows": rows[order]}

    def _writer(self, schema_id: int) -> "_WriterDecoder":
        if schema_id not in self._writers:
            try:
                self._writers[schema_id] = _WriterDecoder(self._codec, self.schema, self._resolve(schema_id))
            except ConfigurationError as error:
                raise BadMessageError(f"schema {schema_id} is refused: {error}") from error
        return self._writers[schema_id]


@dataclass(frozen=True, slots=True)
class _Part:
    table: pa.RecordBatch
    rows: NDArray[np.int64]
    bad: list[BadRow]


class _WriterDecoder:
    """Decodes bodies that were written with one schema."""

    def __init__(self, reader: RecordCodec, columns: pa.Schema, writer: Mapping[str, Any]) -> None:
        self._reader = reader
        self._columns = columns
        self._writer = writer
        self._text = json.dumps(writer)
        normal = normal_form(writer)
        if not isinstance(normal, dict) or normal["type"] != "record":
            raise ConfigurationError("it is not a record's")
        self._takes = projection(reader=reader.normal, writer=normal) if columnar(writer) else None
        self._has_times = has_times(normal)

    def decode(self, bodies: list[bytes], positions: NDArray[np.int64]) -> list[_Part]:
        """Return the bodies' rows in parts; ``positions`` are theirs in the input."""
        parts: list[_Part] = []
        doubtful: list[int] = []
        if self._takes is None:
            doubtful = list(range(len(bodies)))
        else:
            self._decode(bodies, positions, range(len(bodies)), parts, doubtful)
        if doubtful:
            parts.append(self._one_by_one([bodies[at] for at in doubtful], positions[doubtful]))
        return parts

    def _decode(
        self,
        bodies: list[bytes],
        positions: NDArray[np.int64],
        span: range,
        parts: list[_Part],
        doubtful: list[int],
    ) -> None:
        """Decode a span of the bodies as columns; narrow down to the rows that are in doubt."""
        chosen = bodies[span.start : span.stop]
        found = self._columnar(chosen)
        if found is not None:
            table, differing = found
            rows = positions[span.start : span.stop]
            if differing:
                same = np.delete(np.arange(len(chosen)), differing)
                table, rows = table.take(pa.array(same)), rows[same]
                doubtful += [span.start + at for at in differing]
            parts.append(_Part(table, rows, []))
        elif len(span) <= _FEW:
            doubtful += span
        else:
            size = -(-len(span) // _SPANS)
            for start in range(span.start, span.stop, size):
                self._decode(bodies, positions, range(start, min(start + size, span.stop)), parts, doubtful)

    def _columnar(self, bodies: list[bytes]) -> tuple[pa.RecordBatch, list[int]] | None:
        """Return the rows as columns and which of them are in doubt; None where it could be any."""
        try:
            table = pyruhvro.deserialize_array(bodies, self._text)
            table.validate(full=True)  # broken UTF-8
            again = pyruhvro.serialize_record_batch(table, self._text, 1)[0]
        except (ValueError, pa.ArrowInvalid):
            return None
        except BaseException as error:  # a Rust panic is no Exception
            if type(error).__name__ == _PANIC:
                return None
            raise
        if self._has_times and not all(_times_in_range(column) for column in table.columns):
            return None
        # The same bytes with the same borders: then every row is exactly what the schema says.
        offsets = _offsets(again)
        lengths = np.fromiter(map(len, bodies), np.int64, len(bodies))
        written = again.buffers()[2].to_pybytes()[offsets[0] : offsets[-1]]
        differing: list[int] = []
        if not np.array_equal(np.diff(offsets), lengths) or b"".join(bodies) != written:
            pairs = zip(bodies, again.to_pylist(), strict=True)
            differing = [at for at, (body, other) in enumerate(pairs) if body != other]
        columns = [take(table) for take in self._takes or ()]
        return pa.RecordBatch.from_arrays(columns, schema=self._columns), differing

    def _one_by_one(self, bodies: list[bytes], positions: NDArray[np.int64]) -> _Part:
        records: list[dict[str, Any]] = []
        good: list[int] = []
        bad: list[BadRow] = []
        for body, index in zip(bodies, positions.tolist(), strict=True):
            try:
                records.append(for_columns(self._reader.decode(body, self._writer)))
                good.append(index)
            except BadMessageError as error:
                bad.append(BadRow(index=index, error=error))
        tables, kept = self._as_columns(records, good, bad)
        table = pa.concat_batches(tables) if tables else _empty(self._columns)
        return _Part(table, np.array(kept, np.int64), bad)

    def _as_columns(
        self, records: list[dict[str, Any]], positions: list[int], bad: list[BadRow]
    ) -> tuple[list[pa.RecordBatch], list[int]]:
        try:
            return [pa.RecordBatch.from_pylist(records, schema=self._columns)], positions
        except (pa.ArrowException, ArithmeticError) as error:  # like a decimal of too many digits
            if len(records) == 1:
                reason = BadMessageError(f"a value does not fit its column: {error}")
                bad.append(BadRow(index=positions[0], error=reason))
                return [], []
        middle = len(records) // 2
        left, kept_left = self._as_columns(records[:middle], positions[:middle], bad)
        right, kept_right = self._as_columns(records[middle:], positions[middle:], bad)
        return left + right, kept_left + kept_right


class BatchEncoder:
    """Encodes the rows of a batch to framed values."""

    def __init__(self, schema: Mapping[str, Any], schema_id: int) -> None:
        self._text = json.dumps(schema)
        self._columnar = columnar(schema)
        self._codec = RecordCodec(schema)
        self._header = frame(schema_id, b"")
        self._writer = record_writer(schema, self._header)
        self._many = _MANY_CODED if self._writer is None else _MANY_WRITTEN
        self.schema = arrow_schema(schema)

    def encode(self, table: pa.RecordBatch) -> list[bytes]:
        """Return one framed value per row. The batch has the schema's columns, in its order.

        Raises
        ------
        ValueError
            For other columns, and for nulls where the schema has none: a mistake of the caller's.
        """
        self._check(table)
        if not table.num_rows:
            return []
        if not self._columnar:
            return [self._header + self._codec.encode(record) for record in from_columns(table)]
        array = pyruhvro.serialize_record_batch(table, self._text, 1)[0]
        body = array.buffers()[2].to_pybytes()
        offsets = itertools.pairwise(_offsets(array).tolist())
        return [self._header + body[start:stop] for start, stop in offsets]

    def encode_records(self, records: Sequence[Mapping[str, Any]]) -> list[bytes | BadMessageError]:
        """Return for each record its framed value, or why it does not fit the schema.

        Records have every field; times are whole microseconds. Many are encoded as columns.
        """
        if self._columnar and len(records) >= self._many:
            try:
                return [*self.encode(pa.RecordBatch.from_pylist(records, schema=self.schema))]
            except (pa.ArrowException, ValueError, TypeError, OverflowError):
                pass  # one of them does not fit: which one shows below
        return [self._encode_record(record) for record in records]

    def _encode_record(self, record: Mapping[str, Any]) -> bytes | BadMessageError:
        written = self._writer.write(record) if self._writer else None
        if written is not None:
            return written
        try:
            return self._header + self._codec.encode(record)
        except BadMessageError as error:
            return error

    def _check(self, table: pa.RecordBatch) -> None:
        for wanted, found in itertools.zip_longest(self.schema, table.schema):
            if wanted is None or found is None or wanted.name != found.name or wanted.type != found.type:
                raise ValueError(f"the schema wants the column {wanted}, the batch has {found}")
            if not wanted.nullable and table.column(wanted.name).null_count:
                raise ValueError(f"the column {wanted.name} holds nulls; the schema allows none")


def _grouped(
    values: Sequence[bytes | None],
) -> tuple[dict[bytes, tuple[NDArray[np.int64], list[bytes]]], list[BadRow]]:
    """Return positions and bodies by header, and the rows that have no good one."""
    try:  # nearly always all values have one header: no Python step per row
        headers = set(map(_HEADER, values))  # type: ignore[arg-type]
        alike = len(headers) == 1 and max(map(len, values)) <= MAX_MESSAGE_BYTES  # type: ignore[arg-type]
    except TypeError:  # a null
        alike = False
    if alike:
        header = headers.pop()
        if len(header) == HEADER_BYTES and header[:1] == MAGIC:
            return {header: (np.arange(len(values), dtype=np.int64), list(map(_BODY, values)))}, []  # type: ignore[arg-type]
    bad: list[BadRow] = []
    groups: dict[bytes, tuple[list[int], list[bytes]]] = defaultdict(lambda: ([], []))
    for index, value in enumerate(values):
        try:
            _, body = split(value)
        except BadMessageError as error:
            bad.append(BadRow(index=index, error=error))
            continue
        positions, bodies = groups[value[:HEADER_BYTES]]  # type: ignore[index]
        positions.append(index)
        bodies.append(body)
    return {header: (np.array(rows, np.int64), bodies) for header, (rows, bodies) in groups.items()}, bad


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)


def _offsets(array: pa.Array) -> NDArray[np.int64]:
    every = np.frombuffer(array.buffers()[1], np.int32)
    return every[array.offset : array.offset + len(array) + 1].astype(np.int64)


def _times_in_range(array: pa.Array) -> bool:
    """Tell whether all times in a column, at any depth, can be written as a date."""
    kind = array.type
    if pa.types.is_struct(kind):
        return all(_times_in_range(array.field(index)) for index in range(kind.num_fields))
    if pa.types.is_list(kind):
        return _times_in_range(array.values)
    if pa.types.is_map(kind):
        return _times_in_range(array.items)
    if pa.types.is_timestamp(kind):
        least, largest = RANGES["timestamp-micros" if kind.unit == "us" else "timestamp-millis"]
        found = pc.min_max(array.view(pa.int64())).as_py()
    elif pa.types.is_date32(kind):
        least, largest = RANGES["date"]
        found = pc.min_max(array.view(pa.int32())).as_py()
    else:
        return True
    return found["min"] is None or (least <= found["min"] and found["max"] <= largest)
