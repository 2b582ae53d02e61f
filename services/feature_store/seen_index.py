"""Which event ids were applied in the last day: a retried event changes nothing.

Ids are kept as 64-bit hashes, by the hour of the log's clock (record timestamps, never running back), so
that an hour is forgotten at once. Within an hour they lie in sorted segments, merged as they grow, like a
log-structured merge tree. A bitmap over all of them answers for most new ids that they are new.

What counts as seen depends on the log alone, not on batches or on when it is read: a rebuild decides alike.
Two ids share a hash once in 2**64 pairs: with ten million ids a day, one falsely skipped event in about
370 years.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

#: An event id is remembered for this many hours after the hour of its record.
KEPT_HOURS = 24
_FIRST_BITS = 20
#: Bits of the bitmap per id: one new id in sixteen is looked up in vain.
_BITS_PER_ID = 16
#: Segments of an hour are merged when the older is not this much larger.
_GROWTH = 4


def hash_ids(ids: pa.Array) -> Hashes:
    """Return the 64-bit xxHash of each id; none is null."""
    binary = ids.cast(pa.binary())
    buffers = binary.buffers()
    bounds = np.frombuffer(buffers[1], np.int32)[binary.offset : binary.offset + len(binary) + 1].tolist()
    data = buffers[2].to_pybytes() if buffers[2] is not None else b""
    digest = xxhash.xxh64_intdigest
    hashes = [digest(data[start:end]) for start, end in itertools.pairwise(bounds)]
    return np.array(hashes, np.uint64)


class SeenIndex:
    """The ids seen in one partition."""

    def __init__(self) -> None:
        self._hours: dict[int, list[Hashes]] = {}
        self._clear_bitmap(_FIRST_BITS)

    def __len__(self) -> int:
        """Return how many ids are kept."""
        return sum(len(segment) for segments in self._hours.values() for segment in segments)

    @property
    def hours(self) -> list[int]:
        """The hours that are kept."""
        return sorted(self._hours)

    def load(self, hour: int, hashes: Hashes) -> None:
        """Take an hour's ids from the store, in any order."""
        if len(hashes):
            self._add(hour, np.sort(hashes))

    def add_new(self, hashes: Hashes, hours: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Add ids in the order of the log; return which were new. ``hours`` never decrease."""
        new = np.zeros(len(hashes), np.bool_)
        bounds = np.flatnonzero(np.diff(hours)) + 1
        for start, end in _runs(bounds, len(hashes)):
            new[start:end] = self._add_new(hashes[start:end], int(hours[start]))
        return new

    def forget_before(self, hour: int) -> list[int]:
        """Forget the hours that no event of ``hour`` or later can ask for; return them."""
        gone = [kept for kept in self._hours if kept < hour - KEPT_HOURS]
        for kept in gone:
            del self._hours[kept]
        return gone

    def _add_new(self, hashes: Hashes, hour: int) -> NDArray[np.bool_]:
        self.forget_before(hour)
        # The first of equal ids in the batch is the one that may be new.
        distinct, first = np.unique(hashes, return_index=True)
        fresh = ~self._contains(distinct)
        new = np.zeros(len(hashes), np.bool_)
        new[first[fresh]] = True
        if fresh.any():
            self._add(hour, distinct[fresh])
        return new

    def _contains(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Tell which of some sorted hashes are kept."""
        found = np.zeros(len(hashes), np.bool_)
        positions = hashes >> self._shift
        marked = self._bitmap[positions >> np.uint64(3)] >> (positions & np.uint64(7)).astype(np.uint8) & 1
        candidates = np.flatnonzero(marked)
        if not len(candidates):
            return found
        wanted = hashes[candidates]
        hit = np.zeros(len(candidates), np.bool_)
        for segments in self._hours.values():
            for segment in segments:
                at = np.searchsorted(segment, wanted)
                hit |= segment[np.minimum(at, len(segment) - 1)] == wanted
        found[candidates] = hit
        return found

    def _add(self, hour: int, hashes: Hashes) -> None:
        """Add sorted hashes that are not kept yet."""
        segments = self._hours.setdefault(hour, [])
        segments.append(hashes)
        while len(segments) > 1 and len(segments[-2]) < _GROWTH * len(segments[-1]):
            last = segments.pop()
            # Timsort finds the two sorted runs and merges them.
            segments[-1] = np.sort(np.concatenate([segments[-1], last]), kind="stable")
        self._marked += len(hashes)
        if self._marked * _BITS_PER_ID > self._bitmap.size * 8:
            self._rebuild_bitmap()
        else:
            self._mark(hashes)

    def _rebuild_bitmap(self) -> None:
        """Size the bitmap for twice the ids kept now; ids of forgotten hours leave it here."""
        kept = len(self)
        self._clear_bitmap(max(_FIRST_BITS, (2 * kept * _BITS_PER_ID - 1).bit_length()))
        for segments in self._hours.values():
            for segment in segments:
                self._mark(segment)
        self._marked = kept

    def _clear_bitmap(self, bits: int) -> None:
        self._bitmap = np.zeros(1 << (bits - 3), np.uint8)
        self._shift = np.uint64(64 - bits)
        self._marked = 0

    def _mark(self, hashes: Hashes) -> None:
        positions = hashes >> self._shift
        bits = np.left_shift(np.uint8(1), (positions & np.uint64(7)).astype(np.uint8))
        np.bitwise_or.at(self._bitmap, (positions >> np.uint64(3)).astype(np.intp), bits)


def _runs(bounds: NDArray[np.intp], length: int) -> Iterator[tuple[int, int]]:
    edges = [0, *bounds.tolist(), length]
    return ((start, end) for start, end in itertools.pairwise(edges) if start < end)
