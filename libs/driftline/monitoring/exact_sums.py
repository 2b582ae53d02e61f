"""Sums that do not depend on the order of their terms."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Steps per unit for quantities near one: a billionth.
BILLIONTH = 2.0**-30
#: Finer, for quantities that must agree with an oracle to nine digits.
FINEST = 2.0**-36


def exact_sum(values: NDArray[np.float64], step: float = BILLIONTH) -> float:
    """Return the sum of values, each rounded to a whole number of ``step`` (a power of two).

    Whole numbers add without rounding, so any grouping and order gives the same bits as long as the sum of
    the absolute values stays under ``2**53 * step``; beyond that the sum rounds as float64 sums do.

    >>> exact_sum(np.array([0.1] * 10)) == exact_sum(np.array([0.1] * 4)) + exact_sum(np.array([0.1] * 6))
    True
    """
    with np.errstate(over="ignore"):
        return float(np.rint(values * (1.0 / step)).sum() * step)


def power_of_two_above(scale: float) -> float:
    """Return the smallest power of two that is at least ``scale``; one where the scale is zero or no number.

    >>> power_of_two_above(3.0), power_of_two_above(0.5), power_of_two_above(0.0)
    (4.0, 0.5, 1.0)
    """
    if not np.isfinite(scale) or scale <= 0:
        return 1.0
    exponent: Any = np.ceil(np.log2(scale))
    return float(2.0 ** np.clip(exponent, -900, 900))
