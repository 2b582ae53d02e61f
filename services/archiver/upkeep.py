"""Compacts the archive's tables now and then, on a thread of its own: commits go on meanwhile."""

import threading
from collections.abc import Callable, Iterable

from driftline.archive.maintenance import compact
from driftline.runtime.errors import UnavailableError
from driftline.runtime.logging import get_logger

_log = get_logger(__name__)
_FIRST_SECONDS = 60.0
_STOP_SECONDS = 10.0


class Upkeep:
    """Compacts and vacuums tables every ``seconds``, the first time a minute after the start; 0: never.

    ``tables`` is asked each time for the places of those tables that this process looks after.
    """

    def __init__(self, tables: Callable[[], Iterable[str]], *, seconds: float, vacuum_hours: int) -> None:
        self._tables = tables
        self._seconds = seconds
        self._vacuum_hours = vacuum_hours
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begin."""
        if self._seconds:
            self._thread.start()

    def stop(self) -> None:
        """End, soon: a compaction that is cut off leaves files that the next vacuum removes."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        pause = min(_FIRST_SECONDS, self._seconds)
        while not self._stop.wait(pause):
            pause = self._seconds
            for uri in self._tables():
                if self._stop.is_set():
                    return
                self._compact(uri)

    def _compact(self, uri: str) -> None:
        try:
            done = compact(uri, vacuum_hours=self._vacuum_hours)
        except UnavailableError as error:
            _log.warning("not compacted", table=uri, error=str(error))
            return
        if done and (done.removed or done.deleted):
            _log.info("compacted", table=uri, removed=done.removed, added=done.added, deleted=done.deleted)
