"""Time comes from a clock that is passed in, so that tests and replays can hold it."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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


def instant_us(value: datetime | int) -> int:
    """Return microseconds since the epoch of what a decoder gave: an aware datetime, or the number itself.

    >>> instant_us(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    return value if isinstance(value, int) else (value - _EPOCH) // timedelta(microseconds=1)


def text_us(text: str) -> int:
    """Return the instant of an ISO 8601 text; days and texts without an offset are UTC. ValueError for other texts.

    >>> text_us("1970-01-01T00:00:01"), text_us("1970-01-01T01:00:00+01:00"), text_us("1970-01-02")
    (1000000, 0, 86400000000)
    """
    found = datetime.fromisoformat(text)
    return instant_us(found.replace(tzinfo=UTC) if found.tzinfo is None else found)
