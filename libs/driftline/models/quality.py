"""How well scores fit what happened, and the two baselines that a model must beat."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from driftline.models.bundle import Quality


def quality(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> Quality:
    """Return area under the curve, log loss and Brier score (scikit-learn's conventions).

    With one class only there is no area under the curve: it is NaN.

    >>> import numpy as np
    >>> quality(np.array([True, False]), np.array([0.75, 0.25]))
    Quality(auc=1.0, log_loss=0.2876820724517809, brier=0.0625)
    """
    both = bool(labels.any()) and not bool(labels.all())
    return Quality(
        auc=float(roc_auc_score(labels, scores)) if both else float("nan"),
        log_loss=float(log_loss(labels, scores, labels=[False, True])),
        brier=float(brier_score_loss(labels, scores)),
    )


def moving_average(
    label_known_us: NDArray[np.int64],
    labels: NDArray[np.bool_],
    as_of_us: NDArray[np.int64],
    *,
    window_us: int = 86_400_000_000,
    fallback: float,
) -> NDArray[np.float64]:
    """Return, as of each instant, the share of true labels that became known in the window before it.

    ``fallback`` stands where none did. A label counts from the moment it was known, never earlier.

    >>> import numpy as np
    >>> known, labels = np.array([10, 20, 30]), np.array([True, False, True])
    >>> moving_average(known, labels, np.array([5, 20, 35]), window_us=12, fallback=0.2)
    array([0.2, 0.5, 1. ])
    """
    order = np.argsort(label_known_us, kind="stable")
    known = label_known_us[order]
    totals = np.concatenate([[0], np.cumsum(labels[order])])
    last = np.searchsorted(known, as_of_us, side="right")
    first = np.searchsorted(known, as_of_us - window_us, side="right")
    counts = last - first
    shares = (totals[last] - totals[first]) / np.maximum(counts, 1)
    return np.where(counts > 0, shares, fallback)
