"""The columns of the archive: a record's own in types that every Delta reader has, and where it stood in the log.

Types are stored wide, so that Avro's promotions int -> long and float -> double change nothing: every whole
number is a bigint, every other one a double. Times are instants in UTC, in microseconds; a time of day is a
bigint of microseconds; a decimal of more than 38 digits is a text. All columns are nullable: a record that
was written before a field came into being has null there.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.runtime.errors import DriftlineError

PARTITION = "_partition"
OFFSET = "_offset"
TIMESTAMP = "_timestamp"
EVENT_DATE = "_event_date"

INSTANT = pa.timestamp("us", "UTC")
#: The place of a record: partition and offset, Kafka's timestamp, and the day (UTC) that tables are partitioned by.
PLACE = pa.schema(
    [
        pa.field(PARTITION, pa.int32()),
        pa.field(OFFSET, pa.int64()),
        pa.field(TIMESTAMP, INSTANT),
        pa.field(EVENT_DATE, pa.date32()),
    ]
)
#: From the year 1 to the end of 9999, which is what dates can say.
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999


class ColumnConflictError(DriftlineError):
    """Two types under one name, and no promotion from one to the other that the archive can store."""


def storage_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which values of a decoded column are stored.

    >>> storage_type(pa.struct([("at", pa.timestamp("ms")), ("n", pa.int32())]))
    StructType(struct<at: timestamp[us, tz=UTC], n: int64>)
    """
    if pa.types.is_struct(kind):
        if not kind.num_fields:
            raise ColumnConflictError("a record without fields has no column")
        return pa.struct([pa.field(field.name, storage_type(field.type)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(storage_type(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(pa.string(), storage_type(kind.item_type))
    if pa.types.is_integer(kind) or pa.types.is_time(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_timestamp(kind):
        return INSTANT
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_boolean(kind) or pa.types.is_date32(kind) or pa.types.is_decimal128(kind):
        return kind
    return pa.string()  # texts, decimals of more than 38 digits, and fields that are always null


def storage_schema(schema: pa.Schema) -> pa.Schema:
    """Return the stored columns of decoded records, without the place.

    Raises
    ------
    ColumnConflictError
        For names that differ in case only (a Delta table cannot have both), and for the place's own.
    """
    for field in schema:
        if field.name.lower() in PLACE.names:
            raise ColumnConflictError(f"the archive keeps the name {field.name!r} for itself")
    fields = [pa.field(field.name, storage_type(field.type)) for field in schema]
    return united(pa.schema([]), pa.schema(fields))


def united(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """Return the columns of both, the first's in front.

    Raises
    ------
    ColumnConflictError
        Names the column that has two types.
    """
    fields = {field.name: field for field in first}
    spelling = {name.lower(): name for name in fields}
    for field in second:
        name = spelling.setdefault(field.name.lower(), field.name)
        if name != field.name:
            raise ColumnConflictError(f"the column {field.name!r} cannot stand beside {name!r}")
        known = fields.get(name)
        kind = field.type if known is None else _united_type(name, known.type, field.type)
        fields[name] = pa.field(name, kind)
    return pa.schema(list(fields.values()))


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with exactly these columns, nulls where it has none; ``schema`` came from ``united``."""
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
            continue
        column = table[field.name]
        if pa.types.is_time32(column.type):
            column = column.cast(pa.time64("us"))
        columns.append(column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def placed(
    table: pa.Table,
    *,
    partition: int,
    offsets: Sequence[int],
    timestamps_ms: NDArray[np.int64],
    event_times: Sequence[str] = (),
) -> pa.Table:
    """Return stored columns with each record's place.

    The day is that of the first column of ``event_times`` that the table has as an instant, and Kafka's where
    that is null.
    """
    micros = np.clip(timestamps_ms, _FIRST_MS, _LAST_MS) * 1_000
    stamps = pa.array(micros, pa.int64()).cast(INSTANT)
    named = [name for name in event_times if name in table.column_names and table[name].type == INSTANT]
    instants = pc.coalesce(table[named[0]], stamps) if named else stamps
    columns = [
        pa.array(np.full(len(table), partition, np.int32)),
        pa.array(offsets, pa.int64()),
        stamps,
        instants.cast(pa.date32()),
    ]
    for field, column in zip(PLACE, columns, strict=True):
        table = table.append_column(field, column)
    return table


def _united_type(path: str, first: pa.DataType, second: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(first) and pa.types.is_struct(second):
        try:
            return pa.struct(list(united(pa.schema(list(first)), pa.schema(list(second)))))
        except ColumnConflictError as error:
            raise ColumnConflictError(f"in {path!r}: {error}") from error
    if pa.types.is_list(first) and pa.types.is_list(second):
        return pa.list_(_united_type(f"{path}[]", first.value_type, second.value_type))
    if pa.types.is_map(first) and pa.types.is_map(second):
        return pa.map_(pa.string(), _united_type(f"{path}{{}}", first.item_type, second.item_type))
    if first != second:
        raise ColumnConflictError(f"the column {path!r} is {first} in the archive, the record has {second}")
    return first
