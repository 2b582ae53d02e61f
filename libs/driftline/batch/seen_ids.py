"""Which UUIDs a file has named already: exact, in 16 bytes each."""

import uuid
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Ids = NDArray[np.bytes_]


class SeenIds:
    """Remembers UUIDs in sorted runs, each at least twice as long as the next: few runs, few merges."""

    def __init__(self) -> None:
        self._runs: list[_Ids] = []

    def add(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Remember UUIDs (canonical texts); tell of each whether it was there before, or earlier among these."""
        raw = np.array([uuid.UUID(one).bytes for one in ids], dtype="V16").view("S16")
        fresh, first = np.unique(raw, return_index=True)
        repeated = np.ones(len(raw), np.bool_)
        repeated[first] = False
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, raw), len(run) - 1)
            repeated |= run[places] == raw
        self._keep(fresh)
        return repeated

    def _keep(self, run: _Ids) -> None:
        if not len(run):
            return
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.union1d(self._runs.pop(), run)
        self._runs.append(run)
