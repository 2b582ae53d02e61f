"""A mergeable summary of the predictions of one (model, version, window, segment), on a reference's bins.

Merging is exact: counts and the row sample of any split, merged in any order, are those of the whole, and so
are the sums up to 2**23 standard deviations (beyond that they round as float64 does).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.monitoring.arrow_columns import Texts, text_array, text_hashes
from driftline.monitoring.binning import bin_counts
from driftline.monitoring.category_counts import CategoryCounts, merged_names
from driftline.monitoring.exact_sums import BILLIONTH, exact_sum
from driftline.monitoring.record_bytes import pack, unpack
from driftline.monitoring.reference import SCORE, Reference
from driftline.monitoring.row_sample import RowSample
from driftline.runtime.errors import BadMessageError, ConfigurationError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_KIND, _VERSION = b"DLPF", 1
#: Rows that a profile keeps for the exact distances.
SAMPLE_ROWS = 500
#: Per category column, rows by unseen category.
Unseen = tuple[Mapping[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Of one column's finite values: how many, mean, standard deviation (population), smallest, largest."""

    count: int
    mean: float
    std: float
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Profile:
    """The summary. Arrays follow the reference: its numeric columns, then the score; its category columns.

    Attributes
    ----------
    reference
        The fingerprint of the reference whose bins these are.
    bins
        Shape (columns, bins): rows per bin, infinite values included.
    missing
        Rows without a value.
    out_of_range
        Rows below the reference's smallest or above its largest value.
    finite
        Rows with a finite value: what ``sums``, ``squares``, ``minimum`` and ``maximum`` are of.
    sums, squares
        Of the deviations from the reference's mean, so that large values do not drown small differences.
    cells
        Shape (category columns, cells): kept categories, OTHER, UNSEEN.
    confidence_sum
        Of ``|2 * score - 1|``.
    expected_loss_sum, expected_loss_squares
        Of the log loss that the reference's probability map expects, in nats.
    """

    reference: str
    rows: int
    bins: Ints
    missing: Ints
    out_of_range: Ints
    finite: Ints
    sums: Floats
    squares: Floats
    minimum: Floats
    maximum: Floats
    cells: Ints
    category_missing: Ints
    unseen: Unseen
    confidence_sum: float
    expected_loss_sum: float
    expected_loss_squares: float
    sample: RowSample

    @classmethod
    def of(
        cls,
        reference: Reference,
        request_ids: Texts,
        numeric: Mapping[str, NDArray[Any]],
        categorical: Mapping[str, Texts],
        score: NDArray[Any],
        *,
        sample_rows: int = SAMPLE_ROWS,
    ) -> Profile:
        """Summarise a batch of rows; columns that the reference does not have are left out.

        Raises
        ------
        ConfigurationError
            Where a column of the reference is not among the given ones.
        ValueError
            Where columns differ in length.
        """
        _check_names(reference, numeric, categorical)
        columns = [numeric[name] for name in reference.numeric_names]
        matrix = np.stack([np.asarray(column, np.float64) for column in (*columns, score)])
        hashes = text_hashes(request_ids)
        texts = [text_array(categorical[name]) for name in reference.category_names]
        if any(len(column) != matrix.shape[1] for column in (hashes, *texts)):
            raise ValueError("request ids, columns and scores differ in length")
        known = matrix[-1][~np.isnan(matrix[-1])]
        expected = reference.probability.expected_log_loss(known)
        categories = [CategoryCounts.of(reference, place, text) for place, text in enumerate(texts)]
        return cls(
            reference=reference.fingerprint,
            rows=matrix.shape[1],
            **_numeric(reference, matrix),
            cells=np.array([column.cells for column in categories], np.int64).reshape(
                reference.arrays.cells.shape
            ),
            category_missing=np.array([column.missing for column in categories], np.int64),
            unseen=tuple(column.unseen for column in categories),
            confidence_sum=exact_sum(np.abs(2 * known - 1)),
            expected_loss_sum=exact_sum(expected),
            expected_loss_squares=exact_sum(expected**2),
            sample=RowSample.of(hashes, matrix, sample_rows),
        )

    def merge(self, other: Profile) -> Profile:
        """Return the profile of both profiles' rows; ValueError where they have different references."""
        if self.reference != other.reference:
            raise ValueError(
                f"profiles of the references {self.reference} and {other.reference} do not merge"
            )
        return Profile(
            reference=self.reference,
            rows=self.rows + other.rows,
            bins=self.bins + other.bins,
            missing=self.missing + other.missing,
            out_of_range=self.out_of_range + other.out_of_range,
            finite=self.finite + other.finite,
            sums=self.sums + other.sums,
            squares=self.squares + other.squares,
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
            cells=self.cells + other.cells,
            category_missing=self.category_missing + other.category_missing,
            unseen=tuple(merged_names(*pair) for pair in zip(self.unseen, other.unseen, strict=True)),
            confidence_sum=self.confidence_sum + other.confidence_sum,
            expected_loss_sum=self.expected_loss_sum + other.expected_loss_sum,
            expected_loss_squares=self.expected_loss_squares + other.expected_loss_squares,
            sample=self.sample.merge(other.sample),
        )

    @property
    def scored(self) -> int:
        """Rows with a score."""
        return self.rows - int(self.missing[-1])

    def moments(self, reference: Reference) -> dict[str, Moments]:
        """Return the moments of each numeric column, and of the score under its name; NaN where nothing is finite."""
        names = (*reference.numeric_names, SCORE)
        means = reference.arrays.mean
        return {name: self._moments(place, float(means[place])) for place, name in enumerate(names)}

    def _moments(self, place: int, centre: float) -> Moments:
        count = int(self.finite[place])
        if not count:
            return Moments(count=0, mean=np.nan, std=np.nan, minimum=np.nan, maximum=np.nan)
        shift = float(self.sums[place]) / count
        return Moments(
            count=count,
            mean=centre + shift,
            std=float(np.sqrt(max(float(self.squares[place]) / count - shift**2, 0.0))),
            minimum=float(self.minimum[place]),
            maximum=float(self.maximum[place]),
        )

    def to_record(self) -> dict[str, Any]:
        """Return it as lists, numbers and byte strings (the sample, little-endian)."""
        arrays = {name: getattr(self, name).tolist() for name in (*_COUNTS, *_SUMS)}
        return {
            "reference": self.reference,
            "rows": self.rows,
            **arrays,
            "unseen": [dict(names) for names in self.unseen],
            "score_sums": [self.confidence_sum, self.expected_loss_sum, self.expected_loss_squares],
            "sample_limit": self.sample.limit,
            "sample_hashes": self.sample.hashes.astype("<u8").tobytes(),
            "sample_rows": self.sample.rows.astype("<f8").tobytes(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Profile:
        """Return the profile of such a record; KeyError or ValueError where it does not hold together."""
        arrays: dict[str, Any] = {name: np.array(record[name], np.int64) for name in _COUNTS}
        arrays |= {name: np.array(record[name], np.float64) for name in _SUMS}
        confidence, expected, squares = record["score_sums"]
        hashes = np.frombuffer(record["sample_hashes"], "<u8").astype(np.uint64)
        rows = np.frombuffer(record["sample_rows"], "<f8").astype(np.float64)
        return cls(
            reference=record["reference"],
            rows=record["rows"],
            **arrays,
            unseen=tuple(dict(names) for names in record["unseen"]),
            confidence_sum=confidence,
            expected_loss_sum=expected,
            expected_loss_squares=squares,
            sample=RowSample(
                limit=record["sample_limit"],
                hashes=hashes,
                rows=rows.reshape(len(hashes), len(arrays["missing"])),
            ),
        )

    def to_bytes(self) -> bytes:
        """Return it packed and versioned, for a field of Avro bytes. Equal profiles have equal bytes."""
        return pack(_KIND, _VERSION, self.to_record())

    @classmethod
    def from_bytes(cls, data: bytes) -> Profile:
        """Unpack; BadMessageError where the bytes are damaged or of another version."""
        record = unpack(_KIND, _VERSION, data)
        try:
            return cls.from_record(record)
        except (KeyError, ValueError, TypeError) as error:
            raise BadMessageError(f"damaged profile: {error}") from error


_COUNTS = ("bins", "missing", "out_of_range", "finite", "cells", "category_missing")
_SUMS = ("sums", "squares", "minimum", "maximum")


def merge_profiles(profiles: Iterable[Profile]) -> Profile:
    """Merge one or more profiles."""
    return reduce(Profile.merge, profiles)


def _check_names(
    reference: Reference, numeric: Mapping[str, NDArray[Any]], categorical: Mapping[str, Texts]
) -> None:
    lacking = [name for name in reference.numeric_names if name not in numeric]
    lacking += [name for name in reference.category_names if name not in categorical]
    if lacking:
        raise ConfigurationError(
            f"the model's reference has columns that the predictions lack: {', '.join(lacking)}; "
            "build the reference from the columns that are logged"
        )


def _numeric(reference: Reference, matrix: Floats) -> dict[str, Any]:
    """Summarise the numeric columns and the score, one pass over each column while it is in the cache."""
    arrays = reference.arrays
    places = len(matrix)
    bins = np.zeros(arrays.bins.shape, np.int64)
    missing, out_of_range, finite = (np.zeros(places, np.int64) for _ in range(3))
    sums, squares = np.zeros(places), np.zeros(places)
    minimum, maximum = np.full(places, np.inf), np.full(places, -np.inf)
    for place, values in enumerate(matrix):
        edges = arrays.edges[place]
        bins[place, : len(edges) + 1] = bin_counts(values, edges)
        missing[place] = len(values) - bins[place].sum()
        below = np.count_nonzero(values < arrays.minimum[place])
        out_of_range[place] = below + np.count_nonzero(values > arrays.maximum[place])
        held = _finite(values, bool(missing[place]))
        finite[place] = len(held)
        if len(held):
            minimum[place], maximum[place] = held.min(), held.max()
            sums[place], squares[place] = _deviations(held, arrays.mean[place], arrays.scale[place])
    return {
        "bins": bins,
        "missing": missing,
        "out_of_range": out_of_range,
        "finite": finite,
        "sums": sums,
        "squares": squares,
        "minimum": minimum,
        "maximum": maximum,
    }


def _finite(values: Floats, any_missing: bool) -> Floats:
    if any_missing or (len(values) and not (np.isfinite(values.min()) and np.isfinite(values.max()))):
        return values[np.isfinite(values)]
    return values


def _deviations(values: Floats, centre: float, scale: float) -> tuple[float, float]:
    """Return the sums of the deviations from ``centre`` and of their squares, in steps of a billionth of the scale."""
    with np.errstate(over="ignore"):
        relative = (values - centre) * (1.0 / scale)
        squares = relative * relative
    return exact_sum(relative, BILLIONTH) * scale, exact_sum(squares, BILLIONTH) * scale * scale
