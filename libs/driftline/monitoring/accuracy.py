"""How well scores fit what happened: the figures, and those of them that need more than a sum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: scikit-learn's distance from 0 and 1 in logarithms.
_SMALLEST = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineAccuracy:
    """How well a simple baseline did on the same rows (those where it has a probability)."""

    rows: int
    log_loss: float
    brier: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How well scores fit what happened. What is not defined (no rows, one class, no value) is NaN.

    Attributes
    ----------
    log_loss, log_loss_standard_error
        Mean negative log likelihood in nats, and its standard error.
    brier
        Mean squared error of the probability.
    auc, auc_error
        Area under the ROC curve, and how far off it may be at most (zero where it was computed from rows).
    calibration_error
        Expected calibration error over ten equal-width bins (ECE, Naeini et al. 2015).
    false_positive_rate, false_negative_rate
        Among negatives and among positives, at the decision threshold.
    value_per_prediction, value_standard_error
        In the project's unit.
    """

    rows: int
    positive_share: float
    log_loss: float
    log_loss_standard_error: float
    brier: float
    auc: float
    auc_error: float
    calibration_error: float
    false_positive_rate: float
    false_negative_rate: float
    value_per_prediction: float
    value_standard_error: float
    calibration: tuple[tuple[int, float, float], ...]
    """Per calibration bin that holds rows: rows, mean score, positive share."""
    baselines: Mapping[str, BaselineAccuracy] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, NaN as null."""
        plain = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }
        return {**plain, "calibration": [list(cell) for cell in self.calibration]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Accuracy:
        """Return the accuracy of JSON values."""
        numbers: dict[str, Any] = {
            name: math.nan if number is None else number for name, number in value.items()
        }
        numbers["calibration"] = tuple((cell[0], cell[1], cell[2]) for cell in value["calibration"])
        numbers["baselines"] = {
            name: BaselineAccuracy(**baseline) for name, baseline in value["baselines"].items()
        }
        return cls(**numbers)


def log_losses(labels: NDArray[np.bool_], scores: Floats) -> Floats:
    """Return each row's negative log likelihood in nats, clipped as scikit-learn's log loss is.

    >>> log_losses(np.array([True, False]), np.array([0.75, 0.25])).round(6)
    array([0.287682, 0.287682])
    """
    kept = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    return -np.log(np.where(labels, kept, 1 - kept))


def exact_auc(labels: NDArray[np.bool_], scores: ArrayLike) -> float:
    """Return the area under the ROC curve from rows (Mann-Whitney, ties count half); NaN with one class only.

    >>> exact_auc(np.array([False, True, True]), [0.1, 0.1, 0.9])
    0.75
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return math.nan
    above = float(rankdata(scores)[labels].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def binned_auc(histogram: Ints) -> tuple[float, float]:
    """Return the AUC of a histogram by label, and its error bound.

    Pairs in one bin count half; the exact value is at most half the share of such pairs away.

    >>> binned_auc(np.array([[2, 0], [1, 1]]))
    (0.75, 0.25)
    """
    negatives, positives = histogram.astype(np.float64)
    pairs = negatives.sum() * positives.sum()
    if not pairs:
        return math.nan, math.nan
    together = float(negatives @ positives)
    above = float((np.cumsum(negatives) - negatives) @ positives)
    return (above + together / 2) / float(pairs), together / 2 / float(pairs)
