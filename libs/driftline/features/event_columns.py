"""Take out of an Arrow table of events what the kernels compute with: times and float columns."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a table's or batch's column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


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
