"""Arrow columns as what profiles take: float64 with NaN for null, strings, and hashes of identifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

#: Strings as they come: an Arrow column or a plain sequence.
Texts: TypeAlias = "Sequence[str | None] | pa.Array | pa.ChunkedArray"

#: An identifier is hashed by its length and so many of its first bytes (a UUID has 36).
HASHED_BYTES = 64


def numeric_values(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a numeric or boolean Arrow column as float64, NaN for null.

    >>> numeric_values(pa.array([1, None, 3]))
    array([ 1., nan,  3.])
    """
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    filled = pc.fill_null(column.cast(pa.float64()), float("nan"))
    return np.asarray(filled.to_numpy(zero_copy_only=False) if isinstance(filled, pa.Array) else filled)


def text_array(column: Texts) -> pa.Array:
    """Return strings as one Arrow array of type ``string``."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not isinstance(column, pa.Array):
        return pa.array(column, pa.string())
    return column if column.type == pa.string() else column.cast(pa.string())


def text_hashes(column: Texts) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each string, the same in every process and batch. Null counts as empty.

    The bytes are taken as little-endian words, each mixed in by the finaliser of splitmix64 (Stafford's mix 13).
    A word beyond a string's end is not mixed, so that the neighbours in the batch do not matter.

    >>> bool((text_hashes(["a", "bb"]) == text_hashes(["a", "a much longer text", "bb"])[[0, 2]]).all())
    True
    """
    array = pc.fill_null(text_array(column), "")
    lengths = pc.binary_length(array).to_numpy(zero_copy_only=False).astype(np.int64)
    words = _words(array, lengths)
    state = _mixed(lengths.astype(np.uint64))
    for position in range(words.shape[1]):
        reached = lengths > 8 * position
        state = np.where(reached, _mixed(state ^ words[:, position]), state)
    return state


def _words(array: pa.Array, lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return each string's first bytes as words, zero-padded."""
    width = min(int(lengths.max(initial=0)), HASHED_BYTES)
    padded = np.zeros((len(array), -(-width // 8) * 8), dtype=np.uint8)
    if not width:
        return padded.view(np.uint64)
    _, offsets_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[array.offset : array.offset + len(array)]
    data = np.frombuffer(data_buffer, np.uint8)
    if (lengths == width).all():
        # UUIDs: all of one length, so the bytes are a table already.
        padded[:, :width] = data[offsets[0] : offsets[0] + width * len(array)].reshape(-1, width)
    else:
        inside = np.arange(width) < lengths[:, np.newaxis]
        where = np.minimum(offsets[:, np.newaxis] + np.arange(width), len(data) - 1)
        padded[:, :width] = np.where(inside, data[where], 0)
    return padded.view("<u8").astype(np.uint64, copy=False)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
