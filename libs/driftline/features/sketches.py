"""HyperLogLog: how many different values there were, from registers that keep the largest rank each has seen.

Registers of several tiles, batches or partitions merge by their maxima, so what is stored and estimated depends on the
set of events alone. The estimate is Ertl's (2017, "New cardinality estimation algorithms for HyperLogLog
sketches", section 3.1, without the term for full registers, which 2**39 values would fill): nearly unbiased from the
first value on, with a relative standard error of 1.04 / sqrt(registers) (Flajolet et al. 2007), less for few values. It is
rounded to whole numbers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from driftline.features.text_codes import LARGEST_RANK, RANKS, REGISTER_BITS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Registers = NDArray[np.uint8]

#: 1 / (2 ln 2), written out so that it is the same on every machine.
_ALPHA = 0.7213475204444817
#: 2**-rank; a register without a rank adds nothing.
_POWERS = np.array([0.0, *(2.0**-rank for rank in range(1, LARGEST_RANK + 1))])


def sketch_ranks(codes: Floats, registers: int) -> tuple[Ints, Registers]:
    """Return register and rank of codes (see ``text_codes.hash_codes``), none of them null."""
    whole = codes.astype(np.int64)
    return whole // RANKS >> REGISTER_BITS - (registers.bit_length() - 1), (whole % RANKS).astype(np.uint8)


def largest_ranks(codes: Floats, group: Ints, groups: int, registers: int) -> Registers:
    """Return the registers ``[groups, registers]`` of events in groups; a null (NaN) changes none."""
    there = np.flatnonzero(~np.isnan(codes))
    place, rank = sketch_ranks(codes[there], registers)
    brought = np.zeros(groups * registers, np.uint8)
    np.maximum.at(brought, group[there] * registers + place, rank)
    return brought.reshape(groups, registers)


def estimated_counts(registers: Registers) -> Floats:
    """Estimate the number of different values from registers, the last axis.

    >>> estimated_counts(np.zeros((2, 16), np.uint8)).tolist()
    [0.0, 0.0]
    """
    size = registers.shape[-1]
    return estimate(_POWERS[registers].sum(axis=-1), np.count_nonzero(registers == 0, axis=-1), size)


def rank_powers(registers: Registers) -> Floats:
    """Return ``2 ** -rank`` of each register, 0 of those without a rank; sums of them are exact."""
    powers: Floats = _POWERS[registers]
    return powers


def estimate(powers: Floats, empty: NDArray[np.intp], registers: int) -> Floats:
    """Estimate the number of different values from the sum of ``2 ** -rank`` and the number of empty registers."""
    harmonic = powers + registers * _sigma(registers)[empty]
    return np.rint(_ALPHA * registers * registers / harmonic)


@lru_cache(maxsize=16)
def _sigma(registers: int) -> Floats:
    """Return Ertl's sigma of the share of empty registers, for 0 to all of them: ``x + sum of x**(2**k) 2**(k-1)``."""
    values = [_sigma_of(empty / registers) for empty in range(registers)]
    table = np.array([*values, np.inf])
    table.setflags(write=False)
    return table


def _sigma_of(share: float) -> float:
    power, weight, total, before = share, 1.0, share, -1.0
    while total != before:
        power *= power
        before, total = total, total + power * weight
        weight += weight
    return total
