"""Texts as numbers, for the kernels: the places of categories, and what a sketch takes of a text's hash."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Of a 64-bit hash the first bits name a register, of which a sketch takes as many as it has; the rest has a rank.
REGISTER_BITS = 12
_RANK_BITS = 64 - REGISTER_BITS
#: Ranks are cut off here: enough for 2**39 values per register, and few enough to add up 2**-rank exactly.
LARGEST_RANK = 40
#: A code is the register times this, plus the rank.
RANKS = 64


def category_places(texts: pa.StringArray, categories: Sequence[str]) -> Floats:
    """Return the place of each text among some, -1 for another one, NaN for null.

    >>> category_places(pa.array(["UA", None, "AA", "WN"]), ["AA", "UA"])
    array([ 1., nan,  0., -1.])
    """
    places = pc.index_in(texts, pa.array(categories, pa.string())).fill_null(-1)
    return _with_nulls(texts, places.to_numpy(zero_copy_only=False).astype(np.float64))


def hash_codes(texts: pa.StringArray, digest: Callable[[bytes], int] = xxhash.xxh64_intdigest) -> Floats:
    """Return for each text the register and the rank of its hash (64-bit xxHash) as one number, NaN for null.

    The rank is the place of the first 1 among the bits after the register's, as HyperLogLog takes it.

    >>> code = int(hash_codes(pa.array(["UA"]))[0])
    >>> code // RANKS < 2**REGISTER_BITS, 1 <= code % RANKS <= LARGEST_RANK
    (True, True)
    """
    encoded = texts.dictionary_encode()
    hashes = np.array([digest(text.encode()) for text in encoded.dictionary.to_pylist()], np.uint64)
    rest = (hashes & np.uint64(2**_RANK_BITS - 1)).astype(np.float64)  # exact: 52 bits
    ranks = np.minimum(_RANK_BITS + 1 - np.frexp(rest)[1], LARGEST_RANK)
    codes = (hashes >> np.uint64(_RANK_BITS)).astype(np.float64) * RANKS + ranks
    places = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    return _with_nulls(texts, codes[places] if len(codes) else np.full(len(texts), np.nan))


def _with_nulls(texts: pa.StringArray, values: Floats) -> Floats:
    if not texts.null_count:
        return values
    return np.where(texts.is_valid().to_numpy(zero_copy_only=False), values, np.nan)
