"""How predictions turned out in one window, as sums that merge: loss, Brier score, AUC, calibration, value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.monitoring.accuracy import Accuracy, BaselineAccuracy, binned_auc, log_losses
from driftline.monitoring.exact_sums import FINEST, exact_sum
from driftline.monitoring.record_bytes import pack, unpack

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_KIND, _VERSION = b"DLOP", 1
#: Equal-width bins of the score by label; the AUC's error bound follows from them.
SCORE_BINS = 1000
CALIBRATION_BINS = 10
#: Money and the like are added in steps of about a millionth.
_VALUE_STEP = 2.0**-20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutcomeProfile:
    """A mergeable summary of outcomes of one (model, version, window, segment).

    Sums are of whole steps (:mod:`driftline.monitoring.exact_sums`), so that the order of merging does not show.

    Attributes
    ----------
    histogram
        Shape (2, 1000): rows by label (false, true) and score bin.
    confusion
        Shape (2, 2): rows by label and decision.
    calibration_scores
        Sum of scores per calibration bin.
    values
        How many rows have a business value, their sum and their sum of squares.
    baselines
        Per baseline: rows with a probability, sum of log loss, sum of squared error.
    """

    decision_threshold: float
    log_loss_sum: float
    log_loss_squares: float
    squared_error_sum: float
    histogram: Ints
    confusion: Ints
    calibration_scores: Floats
    values: tuple[int, float, float]
    baselines: Mapping[str, tuple[int, float, float]]

    @classmethod
    def of(
        cls,
        labels: NDArray[Any],
        score: NDArray[Any],
        *,
        decision_threshold: float,
        value: NDArray[Any] | None = None,
        baselines: Mapping[str, NDArray[Any]] | None = None,
    ) -> OutcomeProfile:
        """Summarise rows.

        Parameters
        ----------
        labels
            Whether the event happened.
        score
            The model's probability, 0 to 1.
        value
            Business value per row; NaN where it is not known.
        baselines
            The probability that each baseline gave; NaN where it gave none.

        Raises
        ------
        ValueError
            Where a probability is missing or outside 0 to 1, or columns differ in length.
        """
        truths, scores = np.asarray(labels).astype(bool), _probabilities("score", score)
        if len(truths) != len(scores):
            raise ValueError(f"{len(truths)} labels for {len(scores)} scores")
        losses = log_losses(truths, scores)
        fine = np.minimum((scores * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
        cell = _calibration_cells(fine)
        decided = scores >= decision_threshold
        return cls(
            decision_threshold=decision_threshold,
            log_loss_sum=exact_sum(losses, FINEST),
            log_loss_squares=exact_sum(losses**2, FINEST),
            squared_error_sum=exact_sum((scores - truths) ** 2, FINEST),
            histogram=np.bincount(truths * SCORE_BINS + fine, minlength=2 * SCORE_BINS).reshape(2, -1),
            confusion=np.bincount(truths * 2 + decided, minlength=4).reshape(2, 2),
            calibration_scores=_sums_by_cell(cell, scores),
            values=_value_sums(value),
            baselines={
                name: _baseline_sums(truths, _probabilities(f"baseline {name!r}", column, missing=True))
                for name, column in (baselines or {}).items()
            },
        )

    @property
    def rows(self) -> int:
        """How many outcomes."""
        return int(self.histogram.sum())

    @property
    def positives(self) -> int:
        """How many of the events happened."""
        return int(self.histogram[1].sum())

    def merge(self, other: OutcomeProfile) -> OutcomeProfile:
        """Return the profile of both profiles' rows; ValueError where their decision thresholds differ."""
        if self.decision_threshold != other.decision_threshold:
            raise ValueError(
                f"outcomes decided at {self.decision_threshold} do not merge with {other.decision_threshold}"
            )
        names = sorted({*self.baselines, *other.baselines})
        return OutcomeProfile(
            decision_threshold=self.decision_threshold,
            log_loss_sum=self.log_loss_sum + other.log_loss_sum,
            log_loss_squares=self.log_loss_squares + other.log_loss_squares,
            squared_error_sum=self.squared_error_sum + other.squared_error_sum,
            histogram=self.histogram + other.histogram,
            confusion=self.confusion + other.confusion,
            calibration_scores=self.calibration_scores + other.calibration_scores,
            values=_added(self.values, other.values),
            baselines={
                name: _added(self.baselines.get(name, _NOTHING), other.baselines.get(name, _NOTHING))
                for name in names
            },
        )

    def accuracy(self, *, auc: float | None = None) -> Accuracy:
        """Return what the sums say; ``auc`` stands in for the binned one where it was computed from rows."""
        negatives, positives = self.histogram.sum(axis=1).tolist()
        log_loss, log_loss_error = _mean(self.rows, self.log_loss_sum, self.log_loss_squares)
        value, value_error = _mean(*self.values)
        binned, error = binned_auc(self.histogram)
        cells = self._calibration()
        return Accuracy(
            rows=self.rows,
            positive_share=_ratio(self.positives, self.rows),
            log_loss=log_loss,
            log_loss_standard_error=log_loss_error,
            brier=_ratio(self.squared_error_sum, self.rows),
            auc=binned if auc is None else auc,
            auc_error=error if auc is None else 0.0,
            calibration_error=_ratio(sum(n * abs(score - share) for n, score, share in cells), self.rows),
            false_positive_rate=_ratio(int(self.confusion[0, 1]), negatives),
            false_negative_rate=_ratio(int(self.confusion[1, 0]), positives),
            value_per_prediction=value,
            value_standard_error=value_error,
            calibration=cells,
            baselines={
                name: BaselineAccuracy(rows=rows, log_loss=_ratio(loss, rows), brier=_ratio(error, rows))
                for name, (rows, loss, error) in self.baselines.items()
            },
        )

    def _calibration(self) -> tuple[tuple[int, float, float], ...]:
        by_cell = self.histogram.reshape(2, CALIBRATION_BINS, -1).sum(axis=2)
        rows = by_cell.sum(axis=0)
        return tuple(
            (
                int(rows[cell]),
                float(self.calibration_scores[cell] / rows[cell]),
                float(by_cell[1, cell] / rows[cell]),
            )
            for cell in np.flatnonzero(rows)
        )

    def to_record(self) -> dict[str, Any]:
        """Return it as plain values (of the histogram, the bins that hold rows)."""
        return {
            "decision_threshold": self.decision_threshold,
            "log_loss": [self.log_loss_sum, self.log_loss_squares],
            "squared_error": self.squared_error_sum,
            "histogram": [_sparse(row) for row in self.histogram],
            "confusion": self.confusion.tolist(),
            "calibration_scores": self.calibration_scores.tolist(),
            "values": list(self.values),
            "baselines": {name: list(sums) for name, sums in self.baselines.items()},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> OutcomeProfile:
        """Return the profile of such a record."""
        return cls(
            decision_threshold=record["decision_threshold"],
            log_loss_sum=record["log_loss"][0],
            log_loss_squares=record["log_loss"][1],
            squared_error_sum=record["squared_error"],
            histogram=np.stack([_dense(pairs) for pairs in record["histogram"]]),
            confusion=np.array(record["confusion"], np.int64),
            calibration_scores=np.array(record["calibration_scores"], np.float64),
            values=_sums(record["values"]),
            baselines={name: _sums(sums) for name, sums in record["baselines"].items()},
        )

    def to_bytes(self) -> bytes:
        """Return it packed and versioned, for a field of Avro bytes."""
        return pack(_KIND, _VERSION, self.to_record())

    @classmethod
    def from_bytes(cls, data: bytes) -> OutcomeProfile:
        """Unpack; BadMessageError where the bytes are damaged or of another version."""
        return cls.from_record(unpack(_KIND, _VERSION, data))


def merge_outcomes(profiles: Iterable[OutcomeProfile]) -> OutcomeProfile:
    """Merge one or more profiles."""
    return reduce(OutcomeProfile.merge, profiles)


_NOTHING = (0, 0.0, 0.0)


def _calibration_cells(fine: Ints) -> Ints:
    return fine // (SCORE_BINS // CALIBRATION_BINS)


def _sums_by_cell(cell: Ints, scores: Floats) -> Floats:
    steps = np.bincount(cell, np.rint(scores / FINEST), minlength=CALIBRATION_BINS)
    return np.asarray(steps * FINEST, np.float64)


def _probabilities(name: str, column: NDArray[Any], *, missing: bool = False) -> Floats:
    values = np.asarray(column, dtype=np.float64)
    fits = (values >= 0) & (values <= 1)
    if missing:
        fits |= np.isnan(values)
    if not fits.all():
        raise ValueError(f"{name} holds what is no probability from 0 to 1: {values[~fits][0]}")
    return values


def _value_sums(value: NDArray[Any] | None) -> tuple[int, float, float]:
    if value is None:
        return _NOTHING
    values = np.asarray(value, dtype=np.float64)
    values = values[~np.isnan(values)]
    return len(values), exact_sum(values, _VALUE_STEP), exact_sum(values**2, _VALUE_STEP)


def _baseline_sums(labels: NDArray[np.bool_], scores: Floats) -> tuple[int, float, float]:
    held = ~np.isnan(scores)
    truths, given = labels[held], scores[held]
    losses, errors = log_losses(truths, given), (given - truths) ** 2
    return len(given), exact_sum(losses, FINEST), exact_sum(errors, FINEST)


def _added(some: tuple[int, float, float], more: tuple[int, float, float]) -> tuple[int, float, float]:
    return some[0] + more[0], some[1] + more[1], some[2] + more[2]


def _sums(values: Any) -> tuple[int, float, float]:
    return int(values[0]), float(values[1]), float(values[2])


def _ratio(numerator: float, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan


def _mean(rows: int, total: float, squares: float) -> tuple[float, float]:
    """Return a mean and its standard error."""
    if not rows:
        return math.nan, math.nan
    mean = total / rows
    return mean, math.sqrt(max(squares / rows - mean**2, 0.0) / rows)


def _sparse(row: Ints) -> list[list[int]]:
    held = np.flatnonzero(row)
    return [held.tolist(), row[held].tolist()]


def _dense(pairs: list[list[int]]) -> Ints:
    row = np.zeros(SCORE_BINS, np.int64)
    row[pairs[0]] = pairs[1]
    return row
