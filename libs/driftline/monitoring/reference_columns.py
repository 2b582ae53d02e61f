"""What a reference knows of one column: its bins and moments, or its categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.monitoring.binning import bin_counts, inner_edges
from driftline.runtime.errors import ConfigurationError

Floats = NDArray[np.float64]

#: Of a column's rare categories, so many names are kept, so that they are not taken for unseen ones.
KNOWN_NAMES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericColumn:
    """A numeric column of the reference.

    Attributes
    ----------
    edges
        The inner edges of the bins; the outer ones are infinite. Bins are closed above.
    counts
        Rows per bin.
    mean, std, minimum, maximum
        Of the values that are there; the standard deviation is the population's.
    missing
        Rows without a value (NaN or infinite).
    """

    name: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    mean: float
    std: float
    minimum: float
    maximum: float
    missing: int

    @classmethod
    def of(cls, name: str, column: Floats, bins: int) -> NumericColumn:
        """Describe a column; ConfigurationError where it holds no value at all."""
        values = column[np.isfinite(column)]
        if not len(values):
            raise ConfigurationError(
                f"reference column {name!r} holds no number at all: leave it out of the monitored columns"
            )
        edges = inner_edges(values, bins)
        return cls(
            name=name,
            edges=tuple(edges.tolist()),
            counts=tuple(bin_counts(values, edges).tolist()),
            mean=float(values.mean()),
            std=float(values.std()),
            minimum=float(values.min()),
            maximum=float(values.max()),
            missing=len(column) - len(values),
        )

    @property
    def present(self) -> int:
        """Rows with a value."""
        return sum(self.counts)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each bin among the rows with a value."""
        return tuple(count / self.present for count in self.counts)

    @property
    def missing_share(self) -> float:
        """The share of rows without a value."""
        return self.missing / (self.missing + self.present)


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryColumn:
    """A category column of the reference.

    Attributes
    ----------
    kept, counts
        The most frequent categories (ties by name) and their rows.
    others, other_count
        The names of the rest and their rows together: one cell, OTHER.
    others_complete
        Whether ``others`` names all of them. Where it does not, an unknown value counts as OTHER, never unseen.
    singletons
        Categories seen once. Good and Turing: their share estimates how often a new one comes.
    missing
        Rows without a value.
    """

    name: str
    kept: tuple[str, ...]
    counts: tuple[int, ...]
    others: tuple[str, ...]
    other_count: int
    others_complete: bool
    singletons: int
    missing: int

    @classmethod
    def of(cls, name: str, column: Sequence[str | None], categories_kept: int) -> CategoryColumn:
        """Describe a column; ConfigurationError where it holds no value at all."""
        found = Counter(value for value in column if value is not None)
        if not found:
            raise ConfigurationError(
                f"reference column {name!r} holds no category at all: leave it out of the monitored columns"
            )
        ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        kept, rest = ranked[:categories_kept], ranked[categories_kept:]
        return cls(
            name=name,
            kept=tuple(category for category, _ in kept),
            counts=tuple(count for _, count in kept),
            others=tuple(category for category, _ in rest[:KNOWN_NAMES]),
            other_count=sum(count for _, count in rest),
            others_complete=len(rest) <= KNOWN_NAMES,
            singletons=sum(count == 1 for _, count in ranked),
            missing=len(column) - found.total(),
        )

    @property
    def present(self) -> int:
        """Rows with a value."""
        return sum(self.counts) + self.other_count

    @property
    def missing_share(self) -> float:
        """The share of rows without a value."""
        return self.missing / (self.missing + self.present)
