"""From a score to the probability that the reference's labels bear out, and the loss to be expected from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit

from driftline.monitoring.binning import inner_edges

Floats = NDArray[np.float64]

#: Bins of equal weight that the map is fitted on at most, and how many rows each has at least.
BINS, ROWS_PER_BIN = 20, 50
#: Scores are kept so far from 0 and 1 in logarithms, as scikit-learn's log loss does.
SMALLEST = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbabilityMap:
    """A correction of the score's log-odds, piecewise linear in them. With no points it is the identity.

    Attributes
    ----------
    log_odds, corrections
        The points: what is added to the score's log-odds there.
    slope
        How the correction goes on per log-odds beyond the points (as in Platt's scaling): drifted scores lie there,
        and a model that is too sure inside is too sure outside. Zero for a calibrated model.
    """

    log_odds: tuple[float, ...] = ()
    corrections: tuple[float, ...] = ()
    slope: float = 0.0

    @classmethod
    def fitted(cls, labels: NDArray[np.bool_], scores: Floats) -> ProbabilityMap:
        """Fit the map: the share of true labels per score quantile, made to rise by isotonic regression."""
        bins = max(1, min(BINS, len(scores) // ROWS_PER_BIN))
        cell = np.searchsorted(inner_edges(scores, bins), scores, side="left")
        counts = np.bincount(cell)
        held = np.flatnonzero(counts)
        counts = counts[held]
        # Half a label of each kind keeps a bin of one kind from promising certainty.
        smoothed = (np.bincount(cell, labels)[held] + 0.5) / (counts + 1)
        rising = isotonic_regression(smoothed, weights=counts).x
        points = logit(_inside(np.bincount(cell, scores)[held] / counts))
        corrections = logit(rising) - points
        return cls(
            log_odds=tuple(points.tolist()),
            corrections=tuple(corrections.tolist()),
            slope=_slope(points, corrections, counts * rising * (1 - rising)),
        )

    def probability(self, scores: Floats) -> Floats:
        """Return the probability of a true label for each score.

        >>> ProbabilityMap(log_odds=(0.0,), corrections=(0.5,)).probability(np.array([0.5])).round(4)
        array([0.6225])
        """
        if not self.log_odds:
            return scores
        odds = logit(_inside(scores))
        beyond = odds - np.clip(odds, self.log_odds[0], self.log_odds[-1])
        return np.asarray(
            expit(odds + np.interp(odds, self.log_odds, self.corrections) + self.slope * beyond)
        )

    def expected_log_loss(self, scores: Floats) -> Floats:
        """Return the log loss to expect of each score before its label is known, in nats.

        The cross-entropy of the score under the mapped probability; for calibrated scores, their binary entropy.
        This is confidence-based performance estimation (CBPE, NannyML) for log loss. It sees that the scores
        moved; it cannot see that labels stopped following them.

        >>> ProbabilityMap().expected_log_loss(np.array([0.5])).round(6)
        array([0.693147])
        """
        likely = self.probability(scores)
        kept = _inside(scores)
        return -(likely * np.log(kept) + (1 - likely) * np.log1p(-kept))


def _inside(scores: Floats) -> Floats:
    return np.clip(scores, SMALLEST, 1 - SMALLEST)


def _slope(points: Floats, corrections: Floats, weights: Floats) -> float:
    """Return the weighted least-squares slope, kept so that the map rises; zero where the points do not tell."""
    centred = points - np.average(points, weights=weights)
    spread = float((weights * centred**2).sum())
    return max(float((weights * centred * corrections).sum()) / spread, -1.0) if spread > 0 else 0.0
