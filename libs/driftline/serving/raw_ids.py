"""UUIDs of a column, without a step per row."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_LENGTH = 36
_DASHES = [8, 13, 18, 23]
_DIGITS = np.setdiff1d(np.arange(_LENGTH), _DASHES)
_NO_DIGIT = 0xFF
_VALUES = np.full(256, _NO_DIGIT, np.uint8)
for _value, _digit in enumerate("0123456789abcdef"):
    _VALUES[[ord(_digit), ord(_digit.upper())]] = _value


def raw_ids(texts: pa.StringArray) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Return the rows that hold a UUID with its dashes, and those UUIDs, ``[rows, 16]``.

    As ``claims.raw_id`` reads one.

    >>> rows, raw = raw_ids(pa.array(["a", None, "0190a6c5-7b2e-7c11-8000-0123456789ab"]))
    >>> rows.tolist(), raw.tobytes().hex()
    ([2], '0190a6c57b2e7c1180000123456789ab')
    """
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    fits = np.diff(bounds) == _LENGTH
    if texts.null_count:
        fits &= texts.is_valid().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(fits)
    if not len(rows):
        return rows, np.empty((0, 16), np.uint8)
    letters = np.frombuffer(data, np.uint8)[bounds[rows][:, None] + np.arange(_LENGTH)]
    digits = _VALUES[letters[:, _DIGITS]]
    good = (digits.max(axis=1) != _NO_DIGIT) & (letters[:, _DASHES] == ord("-")).all(axis=1)
    if not good.all():
        rows, digits = rows[good], digits[good]
    return rows, digits[:, 0::2] << 4 | digits[:, 1::2]
