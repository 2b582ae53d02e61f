"""Take out of an Arrow table of events what the kernels compute with: times and float columns."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.features.declarations import Entity, Source
from driftline.features.entity_keys import ESCAPES, SEPARATOR


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a table's or batch's column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def event_keys(source: Source, events: pa.RecordBatch | pa.Table) -> pa.Array:
    """Return the key of each event's entity; null where one of the fields that make it up is.

    >>> origin_carrier = Source("arrivals", Entity("route", keys=("origin", "carrier")), "arrived_at")
    >>> events = pa.table({"origin": ["JFK", "a,b", None], "carrier": ["UA", "~", "UA"]})
    >>> event_keys(origin_carrier, events).to_pylist()
    ['JFK,UA', 'a~1b,~0', None]
    """
    return _joined([one_array(events.column(name)) for name in source.entity_fields])


def request_keys(entity: Entity, requests: pa.RecordBatch | pa.Table) -> pa.Array:
    """Return the key of the entity that each request names; null where it does not name all of it."""
    return _joined([one_array(requests.column(name)) for name in entity.keys])


def _joined(columns: list[pa.Array]) -> pa.Array:
    """Join columns as ``entity_keys.join_key`` joins texts; a single one stays as it is."""
    if len(columns) == 1:
        return columns[0]
    parts = [column.cast(pa.string()) for column in columns]
    for plain, escape in ESCAPES:
        parts = [pc.replace_substring(part, plain, escape) for part in parts]
    return pc.binary_join_element_wise(*parts, SEPARATOR)


def micros(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Return times as microseconds since the epoch (a timestamp of any unit, or a number of microseconds).

    >>> micros(pa.array([1], pa.timestamp("s"))).tolist()
    [1000000]
    """
    array = one_array(column)
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us", tz=array.type.tz), safe=False)
    times: NDArray[np.int64] = array.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return times


def float_inputs(events: pa.RecordBatch | pa.Table, names: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Return number or boolean fields as floats: NaN for null, 0 and 1 for booleans.

    >>> float_inputs(pa.table({"late": [True, None, False]}), ["late"])
    {'late': array([ 1., nan,  0.])}
    """
    inputs: dict[str, NDArray[np.float64]] = {}
    for name in names:
        array = one_array(events.column(name))
        if pa.types.is_boolean(array.type):
            array = array.cast(pa.uint8())
        inputs[name] = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return inputs
