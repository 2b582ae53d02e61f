"""Single records as Arrow's Python values and back: times without a zone, UUIDs as texts."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa


def for_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a decoded record with its values as the columns have them.

    >>> for_columns({"at": datetime(2013, 4, 1, 12, tzinfo=UTC)})
    {'at': datetime.datetime(2013, 4, 1, 12, 0)}
    """
    return {name: _changed(value, _plain) for name, value in record.items()}


def from_columns(table: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield a batch's rows as records that fastavro encodes."""
    for row in table.to_pylist(maps_as_pydicts="lossy"):
        yield {name: _changed(value, _in_utc) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return str(value) if isinstance(value, uuid.UUID) else value


def _in_utc(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {name: _changed(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    return change(value)
