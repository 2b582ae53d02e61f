"""A bounded sample of rows that merges exactly: those with the smallest hashes (bottom-k).

The rows with the ``limit`` smallest hashes of a whole are among the smallest of any part that they are in, so
the sample of merged samples is the sample of the whole, whatever the split and the order. As hashes are
uniform, it is a simple random sample without replacement. (Cohen & Kaplan, Summarizing data using bottom-k
sketches, PODC 2007.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowSample:
    """The rows with the smallest hashes, by ascending hash.

    Attributes
    ----------
    limit
        How many rows it keeps at most.
    hashes
        One per row, ascending.
    rows
        Shape (rows, columns), float64; NaN where a value is missing or infinite.
    """

    limit: int
    hashes: NDArray[np.uint64]
    rows: NDArray[np.float64]

    @classmethod
    def of(cls, hashes: NDArray[np.uint64], columns: NDArray[np.float64], limit: int) -> RowSample:
        """Sample from rows given as columns, shape (columns, rows)."""
        chosen = _candidates(hashes, limit)
        rows = columns[:, chosen].T.copy()
        rows[~np.isfinite(rows)] = np.nan
        return cls._smallest(hashes[chosen], rows, limit)

    def merge(self, other: RowSample) -> RowSample:
        """Return the sample of both samples' wholes together; the smaller limit holds."""
        limit = min(self.limit, other.limit)
        hashes = np.concatenate([self.hashes, other.hashes])
        return self._smallest(hashes, np.concatenate([self.rows, other.rows]), limit)

    @classmethod
    def _smallest(cls, hashes: NDArray[np.uint64], rows: NDArray[np.float64], limit: int) -> RowSample:
        order = np.argsort(hashes, kind="stable")
        if (np.diff(hashes[order]) == 0).any():
            # Equal hashes (an identifier twice) are ordered by the rows' bits, so that no order of arrival shows.
            order = np.lexsort((*rows.view(np.int64).T, hashes))
        order = order[:limit]
        return cls(limit=limit, hashes=hashes[order], rows=rows[order])


def _candidates(hashes: NDArray[np.uint64], limit: int) -> NDArray[np.intp]:
    """Return where the smallest hashes are, with every tie of the last one."""
    if len(hashes) <= limit:
        return np.arange(len(hashes))
    return np.flatnonzero(hashes <= np.partition(hashes, limit - 1)[limit - 1])
