"""Events as a point-in-time join takes them: sorted by entity and event time, and found by one search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from driftline.features.layout import NEVER, ViewLayout
from driftline.features.update import present

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_Number = TypeVar("_Number", np.int64, np.float64)

_LARGEST_NUMBER = 2**62


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """Events sorted by entity (a number) and event time."""

    layout: ViewLayout
    entity: Ints
    time_us: Ints
    known_us: Ints
    values: Mapping[str, Floats]

    def running_newest(self, row_entity: Ints, as_of_us: Ints) -> Ints:
        """Return the newest event time that each row knows of."""
        found = _largest_known(self.entity, self.known_us, row_entity, as_of_us)
        return _taken(self.time_us, found, NEVER)

    def lasts(self, row_entity: Ints, as_of_us: Ints) -> tuple[Floats, Ints]:
        """Return value and event time of the newest event with each field, that each row knows of."""
        shape = (len(as_of_us), len(self.layout.lasts))
        last_value, last_time = np.empty(shape), np.empty(shape, np.int64)
        for index, name in enumerate(self.layout.lasts):
            there = np.flatnonzero(present(self.values[name]))
            value = self.values[name][there] + 0.0
            # Of equal times the larger value counts, so it comes later.
            order = np.lexsort((value, self.time_us[there], self.entity[there]))
            chosen = there[order]
            found = _largest_known(self.entity[chosen], self.known_us[chosen], row_entity, as_of_us)
            last_value[:, index] = _taken(value[order], found, np.nan)
            last_time[:, index] = _taken(self.time_us[chosen], found, NEVER)
        return last_value, last_time


class Positions:
    """Finds positions in events that are sorted by entity and an instant.

    An entity and an instant are one sortable number: one search finds a position, and finds it fast where what
    is asked for is sorted in the same way.
    """

    def __init__(self, entity: Ints, instant_us: Ints) -> None:
        low, high = (int(instant_us.min()), int(instant_us.max())) if len(instant_us) else (0, 0)
        entities = int(entity.max(initial=0)) + 1
        self._instants: Ints | None = None
        if max(-low, high, entities * (high - low + 2)) > _LARGEST_NUMBER:
            # So many entities and years do not fit: the instants' ranks do.
            self._instants = np.unique(instant_us)
            instant_us = np.searchsorted(self._instants, instant_us)
            low, high = 0, len(self._instants) - 1
        self._low, self._high, self._step = low, high, high - low + 2
        self._sorted = entity * self._step + (instant_us - low)

    def before(self, entity: Ints, instant_us: Ints) -> NDArray[np.intp]:
        """Return for each entity the position of its first event at or after an instant."""
        if self._instants is not None:
            instant_us = np.searchsorted(self._instants, instant_us)
        return self._position(entity, np.clip(instant_us, self._low, self._high + 1))

    def through(self, entity: Ints, instant_us: Ints) -> NDArray[np.intp]:
        """Return for each entity the position after its last event at or before an instant."""
        if self._instants is not None:
            return self._position(entity, np.searchsorted(self._instants, instant_us, side="right"))
        return self._position(entity, np.clip(instant_us, self._low - 1, self._high) + 1)

    def _position(self, entity: Ints, first: Ints) -> NDArray[np.intp]:
        return np.searchsorted(self._sorted, entity * self._step + (first - self._low))


def _largest_known(entity: Ints, known_us: Ints, row_entity: Ints, as_of_us: Ints) -> NDArray[np.intp]:
    """Return the last position, in order, of an event of the row's entity that it knows of; -1 if none."""
    by_known = np.lexsort((known_us, entity))
    # Positions of an entity are all larger than those of the entities before: one running maximum does.
    running = np.maximum.accumulate(by_known) if len(by_known) else by_known
    positions = Positions(entity[by_known], known_us[by_known])
    until = positions.through(row_entity, as_of_us)
    first = np.searchsorted(entity, row_entity)
    found = np.full(len(row_entity), -1, np.intp)
    some = until > first
    found[some] = running[until[some] - 1]
    return found


def _taken(values: NDArray[_Number], positions: NDArray[np.intp], nothing: float) -> NDArray[_Number]:
    """Return values at positions; ``nothing`` where a position is -1."""
    return np.append(values, np.array([nothing], values.dtype))[positions]
