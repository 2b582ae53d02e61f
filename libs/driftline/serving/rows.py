"""Requests as rows. For a few of them a dictionary each costs less than an Arrow column per field.

``RequestRows`` answers what the engine asks a record batch, so both take the same path.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class RowColumn:
    """One field of some requests, read as an Arrow column is."""

    values: list[Any]
    dtype: type[np.generic] = np.object_

    def to_pylist(self) -> list[Any]:
        """Return the values; None is null."""
        return self.values

    def to_numpy(self, *, zero_copy_only: bool = False) -> NDArray[Any]:
        """Return the values as an array (always a copy); NaN stands for a null among numbers."""
        del zero_copy_only
        return np.array(self.values, self.dtype)

    @property
    def null_count(self) -> int:
        """How many values are null."""
        return self.values.count(None)

    def is_null(self) -> "RowColumn":
        """Tell for each value whether it is null."""
        return RowColumn([value is None for value in self.values], np.bool_)


class RequestRows:
    """Some requests, one record each.

    Parameters
    ----------
    records
        Have every field of the project's request schema, and no other; times are whole microseconds since the epoch.
    numbers
        Names of the fields that are floats.
    """

    def __init__(self, records: Sequence[Record], numbers: frozenset[str]) -> None:
        self.records = records
        self._numbers = numbers

    @property
    def num_rows(self) -> int:
        """How many requests."""
        return len(self.records)

    def column(self, name: str) -> RowColumn:
        """Return one field of all of them."""
        values = [record[name] for record in self.records]
        return RowColumn(values, np.float64 if name in self._numbers else np.object_)

    def take(self, rows: Iterable[Any]) -> "RequestRows":
        """Return the requests at some places (an array of any library)."""
        return RequestRows([self.records[int(row)] for row in np.asarray(rows)], self._numbers)
