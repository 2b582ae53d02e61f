"""Where each of a column's values stands."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Key = TypeVar("_Key")


def positions_by(keys: Iterable[_Key]) -> dict[_Key, NDArray[np.intp]]:
    """Return the positions of each key, ascending; keys in the order in which they come first.

    >>> {key: rows.tolist() for key, rows in positions_by("abab").items()}
    {'a': [0, 2], 'b': [1, 3]}
    """
    codes: dict[_Key, int] = {}
    coded = np.array([codes.setdefault(key, len(codes)) for key in keys], np.intp)
    ends = np.cumsum(np.bincount(coded, minlength=len(codes)))
    return (
        dict(zip(codes, np.split(np.argsort(coded, kind="stable"), ends[:-1]), strict=True)) if codes else {}
    )
