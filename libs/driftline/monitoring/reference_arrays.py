"""A reference's columns side by side, as arrays: numeric columns first, the score last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.monitoring.exact_sums import power_of_two_above
from driftline.monitoring.reference_columns import CategoryColumn, NumericColumn
from driftline.monitoring.sample_distances import SortedSample

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceArrays:
    """``C`` numeric columns, ``B`` bins at most, ``K`` category columns, ``M`` cells at most.

    Attributes
    ----------
    edges
        Per column its inner edges.
    bins
        Shape (C + 1, B): rows per bin, zero beyond a column's last one.
    missing
        Shape (C + 1,), rows without a value.
    mean, std, scale, minimum, maximum
        Shape (C + 1,). ``scale`` is the power of two above the standard deviation.
    cells
        Shape (K, M): rows per kept category; the last two cells are OTHER and UNSEEN (which is zero).
    category_missing
        Shape (K,).
    known
        Per category column the values with a code: the kept ones, then the others.
    numeric_sample
        The sample of the numeric columns (without the score), sorted for exact distances.
    """

    edges: tuple[Floats, ...]
    bins: Floats
    missing: Floats
    mean: Floats
    std: Floats
    scale: Floats
    minimum: Floats
    maximum: Floats
    cells: Floats
    category_missing: Floats
    known: tuple[pa.Array, ...]
    numeric_sample: SortedSample

    @classmethod
    def of(
        cls,
        numeric: Sequence[NumericColumn],
        score: NumericColumn,
        categorical: Sequence[CategoryColumn],
        sample: Floats,
    ) -> ReferenceArrays:
        """Line the columns up."""
        columns = [*numeric, score]
        return cls(
            edges=tuple(np.array(column.edges) for column in columns),
            bins=_padded([column.counts for column in columns]),
            missing=np.array([column.missing for column in columns], np.float64),
            mean=np.array([column.mean for column in columns]),
            std=np.array([column.std for column in columns]),
            scale=np.array([power_of_two_above(column.std) for column in columns]),
            minimum=np.array([column.minimum for column in columns]),
            maximum=np.array([column.maximum for column in columns]),
            cells=_cells(categorical),
            category_missing=np.array([column.missing for column in categorical], np.float64),
            known=tuple(pa.array([*column.kept, *column.others], pa.string()) for column in categorical),
            numeric_sample=SortedSample.of(sample[:, : len(numeric)]),
        )


def _padded(rows: Sequence[Sequence[int]]) -> Floats:
    table = np.zeros((len(rows), max(map(len, rows), default=0)))
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return table


def _cells(categorical: Sequence[CategoryColumn]) -> Floats:
    kept = _padded([column.counts for column in categorical])
    others = np.array([column.other_count for column in categorical], np.float64).reshape(-1, 1)
    return np.concatenate([kept, others, np.zeros_like(others)], axis=1)
