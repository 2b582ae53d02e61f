"""A view's rows of one partition in memory: what the store holds, written through, bounded, least recent out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.features.layout import LAYOUT_VERSION, ViewLayout
from driftline.features.update import apply_events
from driftline.runtime.errors import ConfigurationError

Ints = NDArray[np.int64]

#: Reads values of keys, None where there is none, like Redis's MGET.
Load = Callable[[Sequence[str]], Sequence[bytes | None]]

_FIRST_ROWS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobWrites:
    """Blobs to write: ``heads[i]`` is everything of the command before the i-th blob (see ``mset_head``)."""

    heads: Sequence[bytes]
    blobs: NDArray[np.uint8]
    size: int


def mset_head(key: str, size: int) -> bytes:
    r"""Return what precedes a blob inside an MSET in Redis's protocol: the key, and the blob's length.

    >>> mset_head("k", 3)
    b'\r\n$1\r\nk\r\n$3\r\n'
    """
    encoded = key.encode()
    return b"\r\n$%d\r\n%b\r\n$%d\r\n" % (len(encoded), encoded, size)


class ResidentView:
    """Rows of the entities of one view in one partition.

    ``limit`` bounds the entities kept between batches; one batch may exceed it.
    """

    def __init__(self, layout: ViewLayout, key_of: Callable[[str], str], *, limit: int) -> None:
        self.layout = layout
        self._key_of = key_of
        self._limit = limit
        self._state = layout.empty(_FIRST_ROWS)
        self._used = np.zeros(_FIRST_ROWS, np.int64)
        self._row_of: dict[str, int] = {}
        self._entity_of: list[str | None] = [None] * _FIRST_ROWS
        self._heads: list[bytes] = [b""] * _FIRST_ROWS
        self._free = list(range(_FIRST_ROWS))[::-1]
        self._batch = 0

    def __len__(self) -> int:
        """Return how many entities are resident."""
        return len(self._row_of)

    def apply(
        self, entities: pa.Array, time_us: Ints, inputs: Mapping[str, NDArray[np.float64]], load: Load
    ) -> tuple[BlobWrites, int]:
        """Apply a batch of events; return the blobs that changed, and how many events were too late."""
        self._batch += 1
        if len(self._row_of) > self._limit:
            self._evict()
        if entities.null_count:
            there = np.flatnonzero(entities.is_valid().to_numpy(zero_copy_only=False))
            entities, time_us = entities.take(pa.array(there)), time_us[there]
            inputs = {name: column[there] for name, column in inputs.items()}
        encoded = entities.dictionary_encode()
        touched = self._rows(encoded.dictionary.to_pylist(), load)
        rows = touched[encoded.indices.to_numpy()]
        self._used[touched] = self._batch
        wanted = {name: inputs[name] for name in self.layout.inputs}
        too_late = apply_events(self.layout, self._state, rows, time_us, wanted)
        heads = self._heads
        writes = BlobWrites(
            heads=[heads[row] for row in touched.tolist()],
            blobs=self._state[touched].view(np.uint8),
            size=self.layout.blob_bytes,
        )
        return writes, too_late

    def _rows(self, entities: Sequence[str], load: Load) -> Ints:
        """Return the row of each (distinct) entity; those not resident come from the store, in one read."""
        rows = [self._row_of.get(entity, -1) for entity in entities]
        missing = [position for position, row in enumerate(rows) if row < 0]
        if missing:
            new = [entities[position] for position in missing]
            keys = [self._key_of(entity) for entity in new]
            blobs = load(keys)
            while len(self._free) < len(new):
                self._grow()
            for position, entity, key, blob in zip(missing, new, keys, blobs, strict=True):
                row = self._free.pop()
                self._state[row] = self.layout.blank[0] if blob is None else self._read(key, blob)
                self._row_of[entity] = row
                self._entity_of[row] = entity
                self._heads[row] = mset_head(key, self.layout.blob_bytes)
                rows[position] = row
        return np.array(rows, np.int64)

    def _read(self, key: str, blob: bytes) -> np.void:
        if len(blob) == self.layout.blob_bytes:
            row: np.void = np.frombuffer(blob, self.layout.dtype)[0]
            if row["layout"] == LAYOUT_VERSION and row["fingerprint"] == self.layout.fingerprint:
                return row
        msg = (
            f"{key} was written by another declaration of feature view {self.layout.view.name!r}: what its rows "
            f"hold has changed. Raise its version (now {self.layout.view.version}) and start again"
        )
        raise ConfigurationError(msg)

    def _grow(self) -> None:
        size = len(self._used)
        self._state = np.concatenate([self._state, self.layout.empty(size)])
        self._used = np.concatenate([self._used, np.zeros(size, np.int64)])
        self._entity_of += [None] * size
        self._heads += [b""] * size
        self._free += range(2 * size - 1, size - 1, -1)

    def _evict(self) -> None:
        """Drop the tenth that was used least recently, and what exceeds the limit."""
        rows = np.fromiter(self._row_of.values(), np.int64, len(self._row_of))
        excess = len(rows) - self._limit + self._limit // 10
        for row in rows[np.argpartition(self._used[rows], excess - 1)[:excess]].tolist():
            entity = self._entity_of[row]
            assert entity is not None  # noqa: S101  a row in _row_of has its entity
            del self._row_of[entity]
            self._entity_of[row] = None
            self._heads[row] = b""
            self._free.append(row)
