"""The checks of a window: how far a profile is from its reference, check by check and column by column."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.monitoring.profile import Profile
from driftline.monitoring.reference import Reference
from driftline.monitoring.statistics import chi_squared_statistic, jensen_shannon, psi

Floats = NDArray[np.float64]


class Check(StrEnum):
    """What is measured. Larger is worse, for all of them.

    ``MISSING_CHANGE`` is the absolute change of the share of missing values. ``CHI_SQUARED`` is Pearson's statistic
    divided by its degrees of freedom: about one without drift, whatever the size of the window. ``KS`` and
    ``WASSERSTEIN`` (in the reference's standard deviations) are exact on the two row samples, and so carry the
    error of a sample of the window's rows; the others count every row.
    """

    PSI = "psi"
    JENSEN_SHANNON = "jensen_shannon"
    WASSERSTEIN = "wasserstein"
    KS = "ks"
    OUT_OF_RANGE = "out_of_range_share"
    CHI_SQUARED = "chi_squared_per_df"
    UNSEEN = "unseen_share"
    MISSING_CHANGE = "missing_change"
    SCORE_PSI = "score_psi"
    SCORE_JENSEN_SHANNON = "score_jensen_shannon"
    CONFIDENCE_DROP = "confidence_drop"


#: Shares of rows: they move in steps of one row.
ROW_SHARES = frozenset({Check.OUT_OF_RANGE, Check.UNSEEN, Check.MISSING_CHANGE})

NUMERIC_CHECKS = (
    Check.PSI,
    Check.JENSEN_SHANNON,
    Check.WASSERSTEIN,
    Check.KS,
    Check.OUT_OF_RANGE,
    Check.MISSING_CHANGE,
)
CATEGORY_CHECKS = (Check.PSI, Check.CHI_SQUARED, Check.UNSEEN, Check.MISSING_CHANGE)
SCORE_CHECKS = (Check.SCORE_PSI, Check.SCORE_JENSEN_SHANNON, Check.CONFIDENCE_DROP)


class Measurement(NamedTuple):
    """One check's value; ``column`` is None where it is about the score."""

    check: Check
    column: str | None
    value: float


def check_keys(reference: Reference) -> list[tuple[Check, str | None]]:
    """Return every check of a reference's model, in the order of :func:`check_values`."""
    keys: list[tuple[Check, str | None]] = []
    keys += [(check, name) for check in NUMERIC_CHECKS for name in reference.numeric_names]
    keys += [(check, name) for check in CATEGORY_CHECKS for name in reference.category_names]
    return [*keys, *((check, None) for check in SCORE_CHECKS)]


def evaluate(reference: Reference, profile: Profile) -> list[Measurement]:
    """Measure a window. A check that has nothing to measure (no rows, a column that is all missing) is left out.

    Raises
    ------
    ValueError
        Where the profile was made for another reference.
    """
    if profile.reference != reference.fingerprint:
        raise ValueError(f"a profile on reference {profile.reference}, not on {reference.fingerprint}")
    if not profile.rows:
        return []
    values = check_values(reference, reference_counts(reference), _window_counts(reference, profile)).tolist()
    keys = check_keys(reference)
    return [
        Measurement(check, column, value)
        for (check, column), value in zip(keys, values, strict=True)
        if not math.isnan(value)
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """What the checks compare, of one window or of many: leading axes are free, ``C`` numeric columns, ``K`` category.

    Shapes: rows (...), bins (..., C + 1, B), missing (..., C), out_of_range (..., C), cells (..., K, M),
    category_missing (..., K), confidence (...), smirnov and wasserstein (..., C).
    """

    rows: Floats
    bins: Floats
    missing: Floats
    out_of_range: Floats
    cells: Floats
    category_missing: Floats
    confidence: Floats
    smirnov: Floats
    wasserstein: Floats


def check_values(reference: Reference, expected: Counts, current: Counts) -> Floats:
    """Return the value of each of :func:`check_keys` along the last axis; NaN where there is nothing to measure."""
    rows = current.rows[..., np.newaxis]
    expected_rows = expected.rows[..., np.newaxis]
    statistic, freedom = chi_squared_statistic(expected.cells, current.cells)
    indexes, distances = psi(expected.bins, current.bins), jensen_shannon(expected.bins, current.bins)
    spread = reference.arrays.std[:-1]
    scaled = np.divide(
        current.wasserstein, spread, out=np.full(current.wasserstein.shape, np.nan), where=spread > 0
    )
    blocks = (
        indexes[..., :-1],
        distances[..., :-1],
        scaled,
        current.smirnov,
        current.out_of_range / rows,
        np.abs(current.missing / rows - expected.missing / expected_rows),
        psi(expected.cells, current.cells),
        statistic / np.maximum(freedom, 1),
        current.cells[..., -1] / rows,
        np.abs(current.category_missing / rows - expected.category_missing / expected_rows),
        indexes[..., -1:],
        distances[..., -1:],
        (expected.confidence - current.confidence)[..., np.newaxis],
    )
    return np.concatenate(blocks, axis=-1)


def reference_counts(reference: Reference) -> Counts:
    """Return the reference's side of the comparison."""
    arrays = reference.arrays
    nothing = np.zeros(len(reference.numeric))
    return Counts(
        rows=np.array(float(reference.rows)),
        bins=arrays.bins,
        missing=arrays.missing[:-1],
        out_of_range=nothing,
        cells=arrays.cells,
        category_missing=arrays.category_missing,
        confidence=np.array(reference.confidence),
        smirnov=nothing,
        wasserstein=nothing,
    )


def _window_counts(reference: Reference, profile: Profile) -> Counts:
    distances = reference.arrays.numeric_sample.distances(profile.sample.rows[:, :-1])
    scored = profile.scored
    return Counts(
        rows=np.array(float(profile.rows)),
        bins=profile.bins.astype(np.float64),
        missing=profile.missing[:-1].astype(np.float64),
        out_of_range=profile.out_of_range[:-1].astype(np.float64),
        cells=profile.cells.astype(np.float64),
        category_missing=profile.category_missing.astype(np.float64),
        confidence=np.array(profile.confidence_sum / scored if scored else np.nan),
        smirnov=distances.kolmogorov_smirnov,
        wasserstein=distances.wasserstein,
    )
