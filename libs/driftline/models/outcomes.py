"""What an outcome says of a prediction: its errors and its value."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from driftline.project.declaration import Payoff

#: Scores are kept this far from 0 and 1 in the logarithmic loss, so that one certain error is not infinite.
CLIP = 1e-15


class Rule(Protocol):
    """What turns a score into a decision, as a project declares it and as a bundle keeps it."""

    @property
    def threshold(self) -> float:
        """The least score that is decided as ``above``."""
        ...

    @property
    def above(self) -> str:
        """The decision at and above the threshold."""
        ...

    @property
    def below(self) -> str:
        """The decision below the threshold."""
        ...


def decisions_of(scores: NDArray[np.float64], rule: Rule) -> NDArray[np.object_]:
    """Return the decision that a rule makes of each score."""
    return np.where(scores >= rule.threshold, rule.above, rule.below).astype(object)


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
