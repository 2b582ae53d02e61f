"""Thresholds such that a model without drift raises a stated share of false alarms, over all its checks together.

1. Simulate windows without drift (:mod:`driftline.monitoring.simulation`).
2. Put every check on one scale, the surprise ``-log p``: above a high quantile of its simulated values the tail is
   taken as exponential, which reaches further than ranks of so many replicates could.
3. The largest surprise of a window is what the family-wise rate is about: its quantile over the simulated windows
   is the threshold of the model, and keeps the dependence between checks (the min-p method of Westfall and Young,
   Resampling-Based Multiple Testing, 1993). Tails are fitted on one half and the quantile taken on the other, both
   ways, so that no window is judged by a tail that it shaped.
4. Back on each check's own scale that is its threshold.

The family's rate thus rests on simulated maxima, not on the tails' form; a tail that fits badly only gives its check
more or less of the rate than the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from driftline.monitoring.checks import ROW_SHARES, check_keys
from driftline.monitoring.levels import Level
from driftline.monitoring.profile import SAMPLE_ROWS
from driftline.monitoring.reference import Reference
from driftline.monitoring.simulation import simulate
from driftline.monitoring.thresholds import Key, Thresholds
from driftline.runtime.errors import ConfigurationError

Floats = NDArray[np.float64]

#: Share of windows without drift in which a model may raise a warning, and an alert.
RATES: Mapping[Level, float] = MappingProxyType({Level.WARNING: 1 / 20, Level.ALERT: 1 / 200})
WINDOW_SIZES = (50, 150, 500, 2_000, 10_000, 50_000)
REPLICATES = 4000

#: The tail begins at this share of the simulated values.
_TAIL = 0.02
#: The smallest step of a tail for checks that are not shares of rows: rounding stays below.
_ROUNDING = 1e-6


def calibrate(
    reference: Reference,
    window_sizes: Sequence[int] = WINDOW_SIZES,
    rates: Mapping[Level, float] = RATES,
    seed: int = 0,
    *,
    sample_rows: int = SAMPLE_ROWS,
    replicates: int = REPLICATES,
) -> Thresholds:
    """Return the thresholds of a model; the same for the same reference, settings and seed.

    Parameters
    ----------
    window_sizes
        Rows per window for which to calibrate; others are interpolated.
    rates
        For WARNING and ALERT, the share of windows without drift in which any check may exceed it.
    sample_rows
        Rows that the profiles' samples keep.
    replicates
        Simulated windows per size. With r of them a rate f is met within about ``1 / sqrt(r * f)`` of itself.

    Raises
    ------
    ConfigurationError
        Where a rate is too small for so many replicates, or a size is no positive number.
    """
    sizes = sorted(set(window_sizes))
    _check(sizes, rates, replicates)
    keys = check_keys(reference)
    windows = simulate(
        reference, sizes, sample_rows=sample_rows, replicates=replicates, rng=np.random.default_rng(seed)
    )
    tables = [
        _thresholds(values, _smallest_steps(keys, size), rates)
        for size, values in zip(sizes, windows, strict=True)
    ]
    return Thresholds(
        reference=reference.fingerprint,
        sample_rows=sample_rows,
        rates=dict(rates),
        sizes=tuple(sizes),
        keys=tuple(keys),
        values={level: np.stack([table[level] for table in tables]) for level in rates},
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tails:
    """Per check the tail of its values.

    It begins at ``start`` with the probability ``exp(-surprise)``, which falls by a factor e with every ``step``.
    """

    start: Floats
    surprise: Floats
    step: Floats

    @classmethod
    def of(cls, values: Floats, smallest_steps: Floats) -> Tails:
        """Fit the tails of values, shape (replicates, checks)."""
        start = np.quantile(values, 1 - _TAIL, axis=0, method="higher")
        beyond = values > start
        count = beyond.sum(axis=0)
        excess = np.where(beyond, values - start, 0.0).sum(axis=0)
        step = np.maximum(excess / np.maximum(count, 1), smallest_steps)
        return cls(start=start, surprise=-np.log((count + 1) / (len(values) + 1)), step=step)

    def largest_surprise(self, values: Floats) -> Floats:
        """Return for each replicate the largest surprise over the checks; zero where none is in its tail."""
        beyond = values > self.start
        surprise = self.surprise + (values - self.start) / self.step
        return np.asarray(np.where(beyond, surprise, 0.0).max(axis=1))

    def value_at(self, surprise: float) -> Floats:
        """Return the value of each check that is so surprising, and never less than where its tail begins."""
        return np.asarray(self.start + self.step * np.maximum(surprise - self.surprise, 0.0))


def _thresholds(values: Floats, smallest_steps: Floats, rates: Mapping[Level, float]) -> dict[Level, Floats]:
    measured = ~np.isnan(values).all(axis=0)
    filled = np.nan_to_num(values)
    halves = filled[::2], filled[1::2]
    some, more = (Tails.of(half, smallest_steps) for half in halves)
    surprises = np.concatenate([some.largest_surprise(halves[1]), more.largest_surprise(halves[0])])
    tails = Tails.of(filled, smallest_steps)
    return {
        level: np.where(
            measured, tails.value_at(float(np.quantile(surprises, 1 - rate, method="higher"))), np.inf
        )
        for level, rate in rates.items()
    }


def _smallest_steps(keys: Sequence[Key], size: int) -> Floats:
    return np.array([1 / size if check in ROW_SHARES else _ROUNDING for check, _ in keys])


def _check(sizes: Sequence[int], rates: Mapping[Level, float], replicates: int) -> None:
    if not sizes or sizes[0] < 1:
        raise ConfigurationError("calibration needs window sizes of one row or more")
    for level in (Level.WARNING, Level.ALERT):
        rate = rates.get(level, 0.0)
        if not 10 / replicates <= rate < 1:
            raise ConfigurationError(
                f"a false-alarm rate of {rate:g} for {level} cannot be calibrated on {replicates:,} replicates: "
                f"take {10 / replicates:g} or more, or more replicates"
            )
