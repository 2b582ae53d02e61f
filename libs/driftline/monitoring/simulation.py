"""Windows as they would come if nothing had drifted: the distribution of every check's value without drift.

1. Numeric columns and the score: rows are drawn with replacement from the reference's row sample, so that the
   dependence between columns, and between the checks of one column, is the real one.
2. The reference is one draw too. Its histograms come from its number of rows and its sample from the sample's
   size, each drawn anew: a window is compared with a reference as uncertain as the real one.
3. Categories are drawn from their counts; how often a category is new, a value is missing or out of range comes
   from the posterior of its share (rule of succession; Good-Turing for new categories), as the sample is too small
   to hold rare events.
4. Kolmogorov-Smirnov and Wasserstein see at most as many rows as a profile's sample keeps.

Windows are drawn independently and without seasons: where hours or weekdays differ, calibrate on a reference of
such hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from driftline.monitoring.checks import Counts, check_values
from driftline.monitoring.reference import Reference

Floats = NDArray[np.float64]
#: Row weights and histograms: whole numbers far below 2**24, so four bytes are exact and twice as fast.
Weights = NDArray[np.float32]

#: Replicates that are simulated together, so that a column of weights (half a megabyte) stays in the cache.
BLOCK = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Population:
    """The reference's row sample, prepared for drawing.

    Attributes
    ----------
    members
        Sparse, shape ((C + 1) * B, rows): one where the row falls into the column's bin. (Sparse, and einsum below,
        because a threaded matrix product waits for its threads on a busy machine.)
    confidence
        Shape (rows,).
    orders, gaps, ends
        Per numeric column: the rows that have a value, by value; the distance to the next value; which rows are the
        last of equal ones.
    """

    rows: int
    members: sparse.csr_array
    confidence: Weights
    orders: tuple[NDArray[np.intp], ...]
    gaps: tuple[Weights, ...]
    ends: tuple[NDArray[np.intp], ...]

    @classmethod
    def of(cls, reference: Reference) -> Population:
        """Prepare a reference's sample."""
        sample, arrays = reference.sample, reference.arrays
        width = arrays.bins.shape[1]
        members = np.zeros((len(sample), len(arrays.edges), width), np.float32)
        for place, edges in enumerate(arrays.edges):
            held = np.flatnonzero(~np.isnan(sample[:, place]))
            members[held, place, np.searchsorted(edges, sample[held, place], side="left")] = 1
        orders = tuple(
            np.argsort(column, kind="stable")[: np.count_nonzero(~np.isnan(column))]
            for column in sample.T[:-1]
        )
        sorted_values = [column[order] for column, order in zip(sample.T[:-1], orders, strict=True)]
        gaps = [np.append(np.diff(values), 0.0) for values in sorted_values]
        return cls(
            rows=len(sample),
            members=sparse.csr_array(members.reshape(len(sample), -1).T),
            confidence=np.abs(2 * sample[:, -1] - 1).astype(np.float32),
            orders=orders,
            gaps=tuple(gap.astype(np.float32) for gap in gaps),
            ends=tuple(np.append(np.flatnonzero(gap[:-1] > 0), len(gap) - 1) for gap in gaps),
        )

    def drawn(self, size: int, replicates: int, rng: np.random.Generator) -> Weights:
        """Return how often each row was drawn in each replicate, shape (rows, replicates)."""
        if size <= self.rows:
            places = rng.integers(0, self.rows, (size, replicates)) * replicates + np.arange(replicates)
            counts = np.bincount(places.ravel(), minlength=self.rows * replicates)
            return counts.reshape(self.rows, replicates).astype(np.float32)
        share = np.full(self.rows, 1 / self.rows)
        return np.ascontiguousarray(rng.multinomial(size, share, size=replicates).T, np.float32)

    def mean_confidence(self, weights: Weights, size: int) -> Floats:
        """Return the mean confidence of the rows of each replicate."""
        return np.asarray(np.einsum("i,ij->j", self.confidence, weights) / size, np.float64)

    def distances(self, expected: Weights, current: Weights) -> tuple[Floats, Floats]:
        """Return the Kolmogorov-Smirnov statistic and the raw Wasserstein distance, each (replicates, columns)."""
        smirnov = np.zeros((expected.shape[1], len(self.orders)))
        moved = np.zeros_like(smirnov)
        for place, (order, gap, ends) in enumerate(zip(self.orders, self.gaps, self.ends, strict=True)):
            if not len(order):
                continue
            some, more = expected[order], current[order]
            some /= np.maximum(some.sum(axis=0), 1)
            more /= np.maximum(more.sum(axis=0), 1)
            more -= some
            apart = np.abs(np.cumsum(more, axis=0, out=more), out=more)
            moved[:, place] = np.einsum("i,ij->j", gap, apart)
            smirnov[:, place] = (apart[ends] if len(ends) < len(order) else apart).max(axis=0)
        return smirnov, moved


def simulate(
    reference: Reference, sizes: Sequence[int], *, sample_rows: int, replicates: int, rng: np.random.Generator
) -> list[Floats]:
    """Return for each window size the checks' values without drift, shape (replicates, checks)."""
    population = Population.of(reference)
    parts = [min(BLOCK, replicates - done) for done in range(0, replicates, BLOCK)]
    blocks = [_block(reference, population, sizes, sample_rows, part, rng) for part in parts]
    return [np.concatenate(values) for values in zip(*blocks, strict=True)]


def _block(
    reference: Reference,
    population: Population,
    sizes: Sequence[int],
    sample_rows: int,
    replicates: int,
    rng: np.random.Generator,
) -> list[Floats]:
    sampled = population.drawn(population.rows, replicates, rng)
    whole = sampled + population.drawn(reference.rows - population.rows, replicates, rng)
    expected = _expected(reference, population, whole, rng)
    windows: dict[int, tuple[Weights, Floats, Floats]] = {}
    values = []
    for size in sizes:
        kept = min(size, sample_rows)
        if kept not in windows:
            drawn = population.drawn(kept, replicates, rng)
            windows[kept] = drawn, *population.distances(sampled, drawn)
        drawn, smirnov, moved = windows[kept]
        weights = drawn + population.drawn(size - kept, replicates, rng) if size > kept else drawn
        current = _window(reference, population, weights, size, smirnov, moved, rng)
        values.append(check_values(reference, expected, current))
    return values


def _expected(
    reference: Reference, population: Population, weights: Weights, rng: np.random.Generator
) -> Counts:
    """Draw the reference's side: its histograms as uncertain as its number of rows makes them."""
    replicates, arrays = weights.shape[1], reference.arrays
    cells = np.zeros((replicates, *arrays.cells.shape))
    for place, column in enumerate(reference.categorical):
        cells[:, place] = rng.multinomial(column.present, arrays.cells[place] / column.present, replicates)
    nothing = np.zeros((replicates, len(reference.numeric)))
    return Counts(
        rows=np.full(replicates, float(reference.rows)),
        bins=_bins(reference, population, weights),
        missing=nothing + arrays.missing[:-1],
        out_of_range=nothing,
        cells=cells,
        category_missing=np.zeros((replicates, len(reference.categorical))) + arrays.category_missing,
        confidence=population.mean_confidence(weights, reference.rows),
        smirnov=nothing,
        wasserstein=nothing,
    )


def _window(
    reference: Reference,
    population: Population,
    weights: Weights,
    size: int,
    smirnov: Floats,
    moved: Floats,
    rng: np.random.Generator,
) -> Counts:
    replicates, arrays = weights.shape[1], reference.arrays
    present = reference.rows - arrays.missing[:-1]
    gone = _posterior_rows(arrays.missing[:-1] + 0.5, present + 0.5, size, replicates, rng)
    # Beyond the smallest or the largest of n values lies on average 2 / (n + 1) of the distribution.
    beyond = _posterior_rows(np.full(len(present), 2.0), np.maximum(present - 1, 1), size, replicates, rng)
    cells, category_gone = _categories(reference, size, replicates, rng)
    return Counts(
        rows=np.full(replicates, float(size)),
        bins=_bins(reference, population, weights),
        missing=gone,
        out_of_range=beyond,
        cells=cells,
        category_missing=category_gone,
        confidence=population.mean_confidence(weights, size),
        smirnov=smirnov,
        wasserstein=moved,
    )


def _bins(reference: Reference, population: Population, weights: Weights) -> Floats:
    counts = (population.members @ weights).T
    return np.ascontiguousarray(counts, np.float64).reshape(-1, *reference.arrays.bins.shape)


def _posterior_rows(
    successes: Floats, failures: Floats, size: int, replicates: int, rng: np.random.Generator
) -> Floats:
    """Draw how many of a window's rows are such, the share from its beta distribution."""
    share = rng.beta(successes, failures, (replicates, len(successes)))
    return rng.binomial(size, share).astype(np.float64)


def _categories(
    reference: Reference, size: int, replicates: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Draw the cells of a window, and the rows without a value."""
    arrays = reference.arrays
    cells = np.zeros((replicates, *arrays.cells.shape))
    gone = np.zeros((replicates, len(reference.categorical)))
    for place, column in enumerate(reference.categorical):
        missing = rng.binomial(size, rng.beta(column.missing + 0.5, column.present + 0.5, replicates))
        left = size - missing
        unseen = np.zeros(replicates, np.int64)
        if column.others_complete:
            unseen = rng.binomial(left, rng.beta(column.singletons + 1, column.present, replicates))
        cells[:, place] = rng.multinomial(left - unseen, arrays.cells[place] / column.present)
        cells[:, place, -1] = unseen
        gone[:, place] = missing
    return cells, gone
