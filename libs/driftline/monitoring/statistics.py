"""Distances between two samples or two histograms, in driftline's conventions. Always (reference, current).

Libraries disagree on bins, smoothing and bases; ``docs`` and the tests state what each function prints on one
pair of samples. The binned ones take counts or shares along the last axis (leading axes broadcast), so that
they work from merged profiles; the others take the values themselves.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Floats = NDArray[np.float64]

#: Stands in place of a share of zero in the population stability index.
ZERO_SHARE = 1e-4


class Significance(NamedTuple):
    """A test statistic and the probability of one at least so large without drift."""

    statistic: float
    p_value: float


class ChiSquared(NamedTuple):
    """Pearson's statistic, its probability without drift, and the degrees of freedom."""

    statistic: float
    p_value: float
    degrees_of_freedom: int


def shares(counts: ArrayLike) -> Floats:
    """Return counts divided by their sum along the last axis; NaN where the sum is zero.

    >>> shares([1, 3])
    array([0.25, 0.75])
    """
    numbers = np.asarray(counts, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numbers / numbers.sum(axis=-1, keepdims=True), dtype=np.float64)


def psi(reference: ArrayLike, current: ArrayLike) -> Floats:
    """Population stability index of counts (or shares) over the same bins or categories.

    ``sum((c - r) * log(c / r))`` with 1e-4 in place of zero shares and no renormalising. For numeric columns the
    bins are the reference's deciles with open ends; for categories it is Evidently's.

    >>> round(float(psi([50, 50], [30, 70])), 6)
    0.16946
    >>> round(float(psi([1, 0], [0.5, 0.5])), 4)  # a new category
    4.6043
    """
    expected, observed = shares(reference), shares(current)
    expected = np.where(expected == 0, ZERO_SHARE, expected)
    observed = np.where(observed == 0, ZERO_SHARE, observed)
    return np.asarray(((observed - expected) * np.log(observed / expected)).sum(axis=-1))


def jensen_shannon(reference: ArrayLike, current: ArrayLike) -> Floats:
    """Jensen-Shannon distance, base 2: the root of the divergence, 0 (equal) to 1 (disjoint). SciPy's, NannyML's.

    >>> float(jensen_shannon([1, 0], [0, 1]))
    1.0
    """
    expected, observed = shares(reference), shares(current)
    middle = (expected + observed) / 2
    divergence = special.rel_entr(expected, middle) + special.rel_entr(observed, middle)
    # Rounding can leave a divergence of -1e-17.
    return np.asarray(np.sqrt(np.maximum(divergence.sum(axis=-1), 0.0) / (2 * np.log(2))))


def hellinger(reference: ArrayLike, current: ArrayLike) -> Floats:
    """Hellinger distance, 0 (equal) to 1 (disjoint): ``norm(sqrt(c) - sqrt(r)) / sqrt(2)``.

    >>> float(hellinger([1, 0], [0, 1]))
    1.0
    """
    difference = np.sqrt(shares(current)) - np.sqrt(shares(reference))
    return np.asarray(np.sqrt((difference**2).sum(axis=-1) / 2))


def kolmogorov_smirnov(reference: ArrayLike, current: ArrayLike, *, method: str = "auto") -> Significance:
    """Two-sample, two-sided Kolmogorov-Smirnov test of the values; ``method`` as in ``scipy.stats.ks_2samp``.

    >>> kolmogorov_smirnov([1, 2, 3, 4], [3, 4, 5, 6], method="exact").statistic
    0.5
    """
    result = stats.ks_2samp(reference, current, method=method)
    return Significance(float(result.statistic), float(result.pvalue))


def wasserstein(reference: ArrayLike, current: ArrayLike) -> float:
    """First Wasserstein (earth mover's) distance of the values, in their unit. SciPy's.

    >>> wasserstein([0, 1], [2, 3])
    2.0
    """
    return float(stats.wasserstein_distance(reference, current))


def wasserstein_normalised(reference: ArrayLike, current: ArrayLike) -> float:
    """First Wasserstein distance divided by the reference's standard deviation (population). Evidently's.

    NaN where the reference does not vary.

    >>> wasserstein_normalised([0, 2], [1, 3])
    1.0
    """
    spread = float(np.std(np.asarray(reference, dtype=np.float64)))
    return wasserstein(reference, current) / spread if spread > 0 else float("nan")


def chi_squared_statistic(reference: ArrayLike, current: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """Return Pearson's statistic of counts in the same cells, and its degrees of freedom, along the last axis.

    The contingency table has the rows (reference, current) and a column per cell that holds anything; there is
    no continuity correction, and a category that is new (or gone) is a cell. NaN where a side is empty.

    >>> statistic, freedom = chi_squared_statistic([10, 20, 0], [20, 10, 0])
    >>> round(float(statistic), 4), int(freedom)
    (6.6667, 1)
    """
    expected, observed = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    rows, more = expected.sum(axis=-1, keepdims=True), observed.sum(axis=-1, keepdims=True)
    both = expected + observed
    held = both > 0
    difference = rows * observed - more * expected
    terms = np.divide(difference**2, both, out=np.zeros(np.broadcast(difference, both).shape), where=held)
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = terms.sum(axis=-1) / (rows * more)[..., 0]
    return np.asarray(statistic), np.asarray(np.maximum(held.sum(axis=-1) - 1, 0))


def chi_squared(reference: ArrayLike, current: ArrayLike) -> ChiSquared:
    """Chi-squared test of homogeneity for one column's counts; see :func:`chi_squared_statistic`.

    >>> chi_squared([10, 20], [20, 10]).degrees_of_freedom
    1
    """
    statistic, freedom = chi_squared_statistic(reference, current)
    p_value = float(stats.chi2.sf(statistic, freedom)) if freedom > 0 else 1.0
    return ChiSquared(float(statistic), p_value, int(freedom))


def aligned(reference: Mapping[str, int], current: Mapping[str, int]) -> tuple[Floats, Floats]:
    """Return two counts by category as arrays over the union of their categories, in sorted order.

    >>> aligned({"a": 3}, {"b": 2})
    (array([3., 0.]), array([0., 2.]))
    """
    names = sorted({*reference, *current})
    expected = np.array([reference.get(name, 0) for name in names], dtype=np.float64)
    return expected, np.array([current.get(name, 0) for name in names], dtype=np.float64)
