"""One timer for many deadlines."""

import asyncio
import time
from collections.abc import Callable
from itertools import takewhile
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Deadlines(Generic[Item]):
    """Calls ``late`` with each item that has not ended some seconds after it began; of one event loop.

    All have the same time, so those that began first are due first, and one timer for the oldest of them does: nearly all
    end long before, and a timer each costs more than the rest of a request's accounting.

    Parameters
    ----------
    clock
        Gives the seconds that ``begin`` is told.
    """

    def __init__(
        self, seconds: float, late: Callable[[Item], None], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._seconds = seconds
        self._late = late
        self._clock = clock
        self._begun: dict[Item, float] = {}  # in order
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, item: Item, now: float) -> None:
        """Expect an item to end in time."""
        self._begun[item] = now
        if self._timer is None:
            self._wait(self._seconds)

    def end(self, item: Item) -> None:
        """Expect nothing more of an item."""
        self._begun.pop(item, None)

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """End what is due, and wait for the next, if there is one."""
        latest = self._clock() - self._seconds
        due = [item for item, _ in takewhile(lambda one: one[1] <= latest, self._begun.items())]
        for item in due:
            del self._begun[item]
        oldest = next(iter(self._begun.values()), None)
        self._timer = None
        if oldest is not None:
            self._wait(oldest - latest)
        for item in due:
            self._late(item)
