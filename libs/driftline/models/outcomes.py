"""What an outcome says of a prediction: its errors and its value."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from driftline.project.declaration import Payoff

#: Scores are kept this far from 0 and 1 in the logarithmic loss, so that one certain error is not infinite.
CLIP = 1e-15


def log_losses(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithmic loss of each score, in nats; NaN where the label is NaN.

    >>> log_losses(np.array([1.0, 0.0, np.nan]), np.array([0.5, 0.25, 0.5])).round(6).tolist()
    [0.693147, 0.287682, nan]
    """
    sure = np.clip(scores, CLIP, 1 - CLIP)
    return -(labels * np.log(sure) + (1 - labels) * np.log1p(-sure))


def squared_errors(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared error of each score (its mean is the Brier score); NaN where the label is NaN."""
    return (scores - labels) ** 2


def values(
    labels: NDArray[np.float64], decisions: Sequence[str | None], payoffs: Mapping[str, Payoff]
) -> NDArray[np.float64]:
    """Return what each decision was worth; NaN where the label is NaN or nothing is declared for the decision.

    >>> payoffs = {"late": Payoff(positive=1, negative=-2), "on_time": Payoff(positive=-1, negative=0)}
    >>> values(np.array([1.0, 0.0, np.nan]), ["late", "late", "on_time"], payoffs).tolist()
    [1.0, -2.0, nan]
    """
    found = np.full(len(labels), np.nan)
    chosen = np.asarray(decisions, dtype=object)
    for decision, payoff in payoffs.items():
        taken = chosen == decision
        found[taken] = np.where(labels[taken] == 1, payoff.positive, payoff.negative)
    return np.where(np.isnan(labels), np.nan, found)
