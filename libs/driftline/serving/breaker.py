"""A circuit breaker per model version: a version that keeps failing is not asked on every request.

The terms are Nygard's (Release It!, 2007): *closed*, calls go through; *open*, none does; *half-open*, after a pause one
call at a time goes through as a probe. The window is resilience4j's count-based one: the share of failures among the
last so many calls.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum

from driftline.project import BreakerRule


class BreakerState(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


#: Looked up in their class, they take longer than counting a call does.
_CLOSED, _HALF_OPEN, _OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


class Breaker:
    """Counts a version's calls and says whether it is asked. Thread-safe.

    >>> now = [0.0]
    >>> breaker = Breaker(BreakerRule(window=4, least_calls=2, probes=1), lambda: now[0])
    >>> breaker.succeeded(), breaker.failed("out of beans"), breaker.allows(), str(breaker.state)
    (False, True, False, 'open')
    >>> now[0] = 10.0
    >>> breaker.allows(), breaker.allows(), breaker.succeeded(), str(breaker.state)
    (True, False, True, 'closed')
    """

    def __init__(self, rule: BreakerRule, now: Callable[[], float] = time.monotonic) -> None:
        self.rule = rule
        self._now = now
        self._pause = rule.pause_us / 1e6
        self._lock = threading.Lock()
        self._state = _CLOSED
        self._calls: deque[bool] = deque(maxlen=rule.window)
        self._failures = 0
        self._next_probe = 0.0
        self._probes_passed = 0
        self._why = ""

    @property
    def state(self) -> BreakerState:
        """Whether calls go through."""
        return self._state

    @property
    def why(self) -> str:
        """What failed last; empty where nothing did since it closed."""
        return self._why

    def allows(self) -> bool:
        """Whether a call may go through now; where it does in half-open, that call is the probe."""
        if self._state is _CLOSED:
            return True
        with self._lock:
            return self._probes()

    def succeeded(self) -> bool:
        """Count a call that went well; return whether the breaker has closed by it."""
        with self._lock:
            if self._state is _CLOSED and not self._failures:
                self._calls.append(False)  # in place of the oldest, which was none either
            elif self._state is _CLOSED:
                self._count(failed=False)
            elif self._state is _HALF_OPEN:
                self._probes_passed += 1
                self._next_probe = self._now()
                if self._probes_passed >= self.rule.probes:
                    self._close()
                    return True
            return False

    def failed(self, why: str) -> bool:
        """Count a call that failed; return whether the breaker, which was closed, has opened by it."""
        with self._lock:
            if self._state is _OPEN:  # began before it opened, or nobody else could answer
                return False
            self._why = why
            if self._state is _HALF_OPEN:
                self._open()
                return False
            self._count(failed=True)
            calls = len(self._calls)
            if calls < self.rule.least_calls or self._failures < self.rule.failure_share * calls:
                return False
            self._open()
            return True

    def _probes(self) -> bool:
        now = self._now()
        if self._state is _CLOSED or now < self._next_probe:
            return self._state is _CLOSED
        self._state = _HALF_OPEN
        self._next_probe = now + self._pause  # a probe that never comes back is followed by another
        return True

    def _count(self, *, failed: bool) -> None:
        if len(self._calls) == self.rule.window:
            self._failures -= self._calls[0]
        self._calls.append(failed)
        self._failures += failed

    def _open(self) -> None:
        self._state = _OPEN
        self._next_probe = self._now() + self._pause
        self._probes_passed = 0

    def _close(self) -> None:
        self._state = _CLOSED
        self._calls.clear()
        self._failures = 0
        self._why = ""
