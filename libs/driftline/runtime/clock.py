"""Time comes from a clock that is passed in, so that tests and replays can hold it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time in microseconds since the epoch, UTC."""

    def now_us(self) -> int:
        """Return now, in microseconds since the epoch, UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        """Return now, in microseconds since the epoch, UTC."""
        return time.time_ns() // 1000


class ManualClock:
    """A clock that moves only when it is told to.

    >>> clock = ManualClock(1_000)
    >>> clock.advance(5)
    >>> clock.now_us()
    1005
    """

    def __init__(self, now_us: int = 0) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """Return the time that was set."""
        return self._now_us

    def advance(self, microseconds: int) -> None:
        """Move the clock forward."""
        self._now_us += microseconds
