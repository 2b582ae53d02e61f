"""Ends a process whose loop hangs in a call that does not come back, as clients' calls have done when a broker was killed.

Such a process has lost its partitions at the broker (``max.poll.interval.ms``) and would not notice: a restart takes
them on again from the sink, like after a kill.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from driftline.runtime.errors import EXIT_STALLED
from driftline.runtime.logging import get_logger

_log = get_logger(__name__)

_CHECK_SECONDS = 1.0


def end_process(reason: str) -> None:
    """Write where every thread stands, and end this process now: what is not acknowledged comes again."""
    _log.error("ending the process", reason=reason, code=EXIT_STALLED)
    faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
    sys.stderr.flush()
    os._exit(EXIT_STALLED)


class StallGuard:
    """Calls ``end`` once, from a thread of its own, when ``turned`` was not called for ``seconds``."""

    def __init__(self, seconds: float, *, end: Callable[[str], None] = end_process) -> None:
        self._seconds, self._end = seconds, end
        self._turned_at = time.monotonic()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall guard", daemon=True)

    def turned(self) -> None:
        """Note that the loop came round."""
        self._turned_at = time.monotonic()

    def _watch(self) -> None:
        while not self._closed.wait(_CHECK_SECONDS):
            silent = time.monotonic() - self._turned_at
            if silent > self._seconds:
                self._end(f"the loop has not come round for {silent:.0f} s")
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
