"""Thousands of framed Avro values to one Arrow batch and back, strictly, without a Python step per field.

pyruhvro is fast but lenient (it lets trailing bytes and broken text through) and fails a whole batch for one bad
row. So a decoded batch is encoded again and the lengths compared, text is validated, and what does not
fit is halved until the bad rows stand alone; RecordCodec has the last word on each.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyruhvro
from numpy.typing import NDArray

from driftline.contracts.arrow_types import arrow_schema, columnar
from driftline.contracts.avro_types import normal_form
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.wire import HEADER_BYTES, MAGIC, MAX_MESSAGE_BYTES, split
from driftline.runtime.errors import BadMessageError, ConfigurationError

#: Below so many rows it is cheaper to ask the single-record codec than to halve again.
_ROW_BY_ROW = 8
_PANIC = "PanicException"


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

    def __init__(self, reader_schema: Mapping[str, Any], resolve: Callable[[int], Mapping[str, Any]]) -> None:
        self._reader = dict(reader_schema)
        self._resolve = resolve
        self._codec = RecordCodec(self._reader)
        self._writers: dict[int, _WriterDecoder] = {}
        self.schema = arrow_schema(self._reader)

    def decode(self, values: Sequence[bytes | None]) -> DecodedBatch:
        """Decode values, each with its five-byte header; bad ones are isolated, the others go through."""
        bad: list[BadRow] = []
        groups: dict[bytes, list[int]] = defaultdict(list)
        for index, value in enumerate(values):
            if value is not None and HEADER_BYTES <= len(value) <= MAX_MESSAGE_BYTES and value[:1] == MAGIC:
                groups[value[:HEADER_BYTES]].append(index)
            else:
                bad.append(_refusal(index, value))
        tables, rows = [], []
        for header, members in groups.items():
            schema_id = int.from_bytes(header[1:], "big")
            bodies = [values[index][HEADER_BYTES:] for index in members]  # type: ignore[index]
            try:
                writer = self._writer(schema_id)
            except BadMessageError as error:
                bad += [BadRow(index=index, error=error) for index in members]
                continue
            positions = np.array(members, np.int64)
            for table, good, failed in writer.decode(bodies):
                tables.append(table)
                rows.append(positions[good])
                bad += [BadRow(index=members[row], error=error) for row, error in failed]
        return self._together(tables, rows, bad)

    def _together(
        self, tables: list[pa.RecordBatch], rows: list[NDArray[np.int64]], bad: list[BadRow]
    ) -> DecodedBatch:
        bad.sort(key=lambda row: row.index)
        if not tables:
            return DecodedBatch(table=_empty(self.schema), rows=np.empty(0, np.int64), bad=tuple(bad))
        if len(tables) == 1:
            return DecodedBatch(table=tables[0], rows=rows[0], bad=tuple(bad))
        table = pa.Table.from_batches(tables).combine_chunks().to_batches()
        positions = np.concatenate(rows)
        merged = table[0] if table else _empty(self.schema)
        order = np.argsort(positions, kind="stable")
        return DecodedBatch(table=merged.take(pa.array(order)), rows=positions[order], bad=tuple(bad))

    def _writer(self, schema_id: int) -> "_WriterDecoder":
        if schema_id not in self._writers:
            schema = dict(self._resolve(schema_id))
            try:
                normal_form(schema)
            except ConfigurationError as error:
                raise BadMessageError(f"schema {schema_id}: {error}") from error
            self._writers[schema_id] = _WriterDecoder(self._codec, self.schema, schema)
        return self._writers[schema_id]


Part = tuple[pa.RecordBatch, NDArray[np.int64], list[tuple[int, BadMessageError]]]


class _WriterDecoder:
    """Decodes bodies that were written with one schema."""

    def __init__(self, reader: RecordCodec, reader_columns: pa.Schema, writer: Mapping[str, Any]) -> None:
        self._reader = reader
        self._columns = reader_columns
        self._writer = dict(writer)
        self._text = json.dumps(self._writer)
        self._projection = (
            _projection(reader.schema, self._writer)
            if columnar(self._writer) and columnar(reader.schema)
            else None
        )

    def decode(self, bodies: list[bytes]) -> list[Part]:
        parts: list[Part] = []
        self._decode(bodies, np.arange(len(bodies), dtype=np.int64), parts)
        return parts

    def _decode(self, bodies: list[bytes], rows: NDArray[np.int64], parts: list[Part]) -> None:
        table = self._columnar(bodies) if self._projection is not None else None
        if table is not None:
            parts.append((table, rows, []))
        elif self._projection is None or len(bodies) <= _ROW_BY_ROW:
            parts.append(self._row_by_row(bodies, rows))
        else:
            middle = len(bodies) // 2
            self._decode(bodies[:middle], rows[:middle], parts)
            self._decode(bodies[middle:], rows[middle:], parts)

    def _columnar(self, bodies: list[bytes]) -> pa.RecordBatch | None:
        """Return the rows as columns; None where any of them is not exactly what the schema says."""
        try:
            table = pyruhvro.deserialize_array(bodies, self._text)
            table.validate(full=True)  # broken UTF-8
            again = pyruhvro.serialize_record_batch(table, self._text, 1)[0]
        except (ValueError, pa.ArrowInvalid):
            return None
        except BaseException as error:
            if type(error).__name__ == _PANIC:
                return None
            raise
        lengths = np.fromiter(map(len, bodies), np.int64, len(bodies))
        if not np.array_equal(np.diff(_offsets(again)), lengths):
            return None
        projection = self._projection or []
        return pa.RecordBatch.from_arrays([take(table) for take in projection], schema=self._columns)

    def _row_by_row(self, bodies: list[bytes], rows: NDArray[np.int64]) -> Part:
        records, good, bad = [], [], []
        for body, row in zip(bodies, rows.tolist(), strict=True):
            try:
                records.append(_plain_times(self._reader.decode(body, self._writer)))
                good.append(row)
            except BadMessageError as error:
                bad.append((row, error))
        return pa.RecordBatch.from_pylist(records, schema=self._columns), np.array(good, np.int64), bad


class BatchEncoder:
    """Encodes the rows of a batch to framed values."""

    def __init__(self, schema: Mapping[str, Any], schema_id: int) -> None:
        self._text = json.dumps(schema)
        self._header = MAGIC + schema_id.to_bytes(4, "big")
        self._columnar = columnar(schema)
        self._codec = RecordCodec(schema)
        self.schema = arrow_schema(schema)

    def encode(self, table: pa.RecordBatch) -> list[bytes]:
        """Return one framed value per row. The batch has the schema's columns, in its order."""
        if not table.num_rows:
            return []
        if not self._columnar:
            records = table.to_pylist(maps_as_pydicts="strict")
            return [self._header + self._codec.encode(_utc_times(record)) for record in records]
        array = pyruhvro.serialize_record_batch(table, self._text, 1)[0]
        body = array.buffers()[2].to_pybytes()
        offsets = _offsets(array).tolist()
        header = self._header
        return [header + body[start:stop] for start, stop in itertools.pairwise(offsets)]


def _offsets(array: pa.Array) -> NDArray[np.int64]:
    return np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1].astype(
        np.int64
    )


def _refusal(index: int, value: bytes | None) -> BadRow:
    try:
        split(value)
    except BadMessageError as error:
        return BadRow(index=index, error=error)
    raise AssertionError("a value that passes was refused")


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)


def _projection(
    reader: Mapping[str, Any], writer: Mapping[str, Any]
) -> list[Callable[[pa.RecordBatch], pa.Array]] | None:
    """Return for each of the reader's columns how to take it from the writer's; None where columns will not do."""
    written = {field["name"]: field for field in writer["fields"]}
    takes: list[Callable[[pa.RecordBatch], pa.Array]] = []
    for field, column in zip(reader["fields"], arrow_schema(reader), strict=True):
        known = [written[alias] for alias in (field["name"], *field.get("aliases", ())) if alias in written]
        if not known:
            if "default" not in field or (
                field["default"] is not None and not isinstance(field["default"], str | int | float | bool)
            ):
                return None
            takes.append(_constant(field["default"], column.type))
        elif _same(known[0]["type"], field["type"]):
            takes.append(_column(known[0]["name"]))
        elif (
            _flat(known[0]["type"])
            and _flat(field["type"])
            and not (isinstance(known[0]["type"], list) and not isinstance(field["type"], list))
        ):
            takes.append(_cast(known[0]["name"], column.type))
        else:
            return None
    return takes


def _same(left: Any, right: Any) -> bool:
    return bool(_without_docs(left) == _without_docs(right))


def _without_docs(schema: Any) -> Any:
    if isinstance(schema, list):
        branches = [_without_docs(branch) for branch in schema]
        return sorted(branches, key=str)  # ["null", T] and [T, "null"] are the same column
    if isinstance(schema, Mapping):
        if set(schema) == {"type"}:
            return _without_docs(schema["type"])
        return {
            name: _without_docs(value) if name in {"type", "items", "values"} else value
            for name, value in schema.items()
            if name not in {"doc", "aliases"}
        }
    return schema


def _flat(schema: Any) -> bool:
    if isinstance(schema, list):
        return all(branch == "null" or _flat(branch) for branch in schema)
    return schema in {"int", "long", "float", "double"} or (
        isinstance(schema, Mapping)
        and schema.get("type") in {"int", "long", "float", "double"}
        and "logicalType" not in schema
    )


def _column(name: str) -> Callable[[pa.RecordBatch], pa.Array]:
    return lambda table: table.column(name)


def _cast(name: str, kind: pa.DataType) -> Callable[[pa.RecordBatch], pa.Array]:
    return lambda table: table.column(name).cast(kind, safe=False)


def _constant(value: Any, kind: pa.DataType) -> Callable[[pa.RecordBatch], pa.Array]:
    return lambda table: pa.repeat(pa.scalar(value, kind), table.num_rows)


def _plain_times(value: Any) -> Any:
    """Return a record with its times without a zone, in UTC, as the columns have them."""
    return _with_times(value, lambda time: time.astimezone(UTC).replace(tzinfo=None))


def _utc_times(value: Any) -> Any:
    """Return a record with its times in UTC, as fastavro wants them."""
    return _with_times(value, lambda time: time.replace(tzinfo=UTC))


def _with_times(value: Any, change: Callable[[datetime], datetime]) -> Any:
    if isinstance(value, datetime):
        return change(value)
    if isinstance(value, dict):
        return {name: _with_times(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_times(item, change) for item in value]
    return value
