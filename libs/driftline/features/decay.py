"""Exponential decay: tiles weighed by their age when they are read, so that what is stored stays exact sums.

Read as of ``t``, an event of tile ``k`` weighs ``2 ** -((t // width - k) * width / half_life)``: 1 in the current tile,
and by then less with every tile, for ``DECAY_HALF_LIVES`` half-lives. That is the event's own decay but for the
places of the event and of ``t`` in their tiles: a weight is off by a factor of at most ``2 ** (width / half_life)``
(1.06 with 12 tiles per half-life), as often above as below. Of steady traffic the cut-off leaves out 1/256.

A weighed sum is rounded, so its order counts: it is a fixed tree over the ring's slots, and a tile's slot follows
from its number. So the answer is a function of the set of events, to the bit, alone or among other rows.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from driftline.features.rings import Ring

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@lru_cache(maxsize=1024)
def tile_weights(half_life_us: int, width_us: int, tiles: int) -> Floats:
    """Return a tile's weight by its age in tiles; one more, 0, for those that are older or still to come.

    The powers are computed in decimal, so that every machine has the same bits.

    >>> tile_weights(2, 1, 5).round(4).tolist()
    [1.0, 0.7071, 0.5, 0.3536, 0.25, 0.0]
    """
    with localcontext() as context:
        context.prec = 40
        powers = [float(Decimal(2) ** -(Decimal(age * width_us) / half_life_us)) for age in range(tiles)]
    weights = np.array([*powers, 0.0])
    weights.setflags(write=False)
    return weights


def decayed_totals(ring: Ring, tiles: NDArray[np.int32], accumulators: Floats, as_of_us: Ints) -> Floats:
    """Return the weighed sums of a ring with a half-life: ``[n, A]``.

    Parameters
    ----------
    tiles, accumulators
        ``[n, S]`` and ``[n, S, A]``: the tile in each slot (-1: none) and its sums, 0 where the slot is empty.
    """
    if ring.half_life_us is None:
        msg = f"a ring of windows ({ring.windows_us}) has no half-life"
        raise ValueError(msg)
    length = ring.windows_us[0] // ring.width_us
    age = (np.asarray(as_of_us, np.int64) // ring.width_us)[:, None] - tiles
    age[(age < 0) | (age >= length)] = length
    weights = tile_weights(ring.half_life_us, ring.width_us, length)
    return _tree_sum(weights[age][..., None] * accumulators)


def _tree_sum(parts: Floats) -> Floats:
    """Add up the second axis in an order that depends on its length only."""
    while parts.shape[1] > 1:
        half = parts.shape[1] // 2
        paired = parts[:, :half] + parts[:, half : 2 * half]
        if parts.shape[1] % 2:
            paired[:, 0] += parts[:, -1]
        parts = paired
    # Adding zero turns -0.0, the weighed sum of tiles that do not count, to 0.0.
    return parts[:, 0] + 0.0
