"""The rows of one category column, counted in the reference's cells, and the categories that are new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftline.monitoring.arrow_columns import text_hashes
from driftline.monitoring.reference import Reference

#: Unseen categories that are named (those with the smallest hashes), and the length that a name is cut to.
UNSEEN_NAMES, NAME_LENGTH = 20, 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CategoryCounts:
    """Rows per cell (the kept categories, OTHER, UNSEEN), rows without a value, rows by unseen category."""

    cells: NDArray[np.int64]
    missing: int
    unseen: Mapping[str, int]

    @classmethod
    def of(cls, reference: Reference, place: int, values: pa.Array) -> CategoryCounts:
        """Count the values of the reference's category column at ``place``."""
        column, width = reference.categorical[place], reference.arrays.cells.shape[1]
        code = pc.index_in(values, value_set=reference.arrays.known[place])
        codes = pc.fill_null(code, -1).to_numpy(zero_copy_only=False)
        kept = len(column.kept)
        # Cell 0: no code; then the kept categories; then all others that the reference knows.
        by_code = np.bincount(np.minimum(codes, kept) + 1, minlength=kept + 2)
        cells = np.zeros(width, np.int64)
        cells[:kept], cells[-2] = by_code[1:-1], by_code[-1]
        strange = int(by_code[0]) - values.null_count
        if not column.others_complete:
            cells[-2] += strange
            strange = 0
        cells[-1] = strange
        unseen = values.filter(pc.and_(pc.is_valid(values), pc.is_null(code))) if strange else None
        return cls(
            cells=cells, missing=values.null_count, unseen={} if unseen is None else _counted_names(unseen)
        )


def merged_names(some: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Return the rows by unseen category of two parts together.

    >>> merged_names({"a": 1}, {"a": 2})
    {'a': 3}
    """
    if not some and not more:
        return {}
    return _smallest_names({name: some.get(name, 0) + more.get(name, 0) for name in {*some, *more}})


def _counted_names(values: pa.Array) -> dict[str, int]:
    counted = pc.value_counts(pc.utf8_slice_codeunits(values, 0, NAME_LENGTH)).to_pylist()
    return _smallest_names({entry["values"]: entry["counts"] for entry in counted})


def _smallest_names(counted: Mapping[str, int]) -> dict[str, int]:
    """Keep the names with the smallest hashes: a name that the whole keeps is kept, and counted, in every part."""
    names = sorted(counted)
    order = np.argsort(text_hashes(names), kind="stable")[:UNSEEN_NAMES]
    return {names[place]: counted[names[place]] for place in order.tolist()}
