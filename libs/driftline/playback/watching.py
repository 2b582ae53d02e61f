"""Wait for the services: until the store has applied what was sent, until predictions are in the log."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from driftline.features.online import OnlineStore
from driftline.playback.errors import PlaybackError
from driftline.playback.topic_reading import TopicReader

#: Raises where a service has died, so that nobody waits for it in vain.
Watchdog = Callable[[], None]

_PATIENCE_SECONDS = 60.0
_WATCHDOG_SECONDS = 1.0
#: An applied batch takes some milliseconds; asking earlier would only take the processor from it.
_FIRST_PAUSE_SECONDS = 0.002
_PAUSE_SECONDS = 0.001
_LONG_PAUSE_SECONDS = 0.01


class StoreWatch:
    """Follows the offsets that the feature store has applied."""

    def __init__(self, store: OnlineStore, watchdog: Watchdog) -> None:
        self._store = store
        self._watchdog = watchdog
        self._applied: dict[tuple[str, int], int] = {}

    def wait_until(self, reached: Mapping[tuple[str, int], int]) -> None:
        """Return once every partition's applied offset is at least the one given.

        Raises
        ------
        PlaybackError
            Where a partition makes no progress for a minute.
        """
        waiting = {
            place: offset for place, offset in reached.items() if self._applied.get(place, -1) < offset
        }
        if not waiting:
            return
        time.sleep(_FIRST_PAUSE_SECONDS)
        moved = checked = time.monotonic()
        while True:
            for event_type in {event_type for event_type, _ in waiting}:
                for partition, offset in self._store.applied_offsets(event_type).items():
                    if self._applied.get((event_type, partition)) != offset:
                        self._applied[event_type, partition] = offset
                        moved = time.monotonic()
            waiting = {
                place: offset for place, offset in waiting.items() if self._applied.get(place, -1) < offset
            }
            if not waiting:
                return
            now = time.monotonic()
            if now - checked > _WATCHDOG_SECONDS:
                self._watchdog()
                checked = now
            if now - moved > _PATIENCE_SECONDS:
                (event_type, partition), offset = next(iter(waiting.items()))
                msg = (
                    f"the feature store has not applied {event_type}[{partition}] up to {offset}: it is at "
                    f"{self._applied.get((event_type, partition), 'the beginning')}; see `driftline status`"
                )
                raise PlaybackError(msg)
            time.sleep(_PAUSE_SECONDS if now - moved < 1 else _LONG_PAUSE_SECONDS)


class PredictionLog:
    """Follows the predictions topic from now on, as a consumer of committed records sees it."""

    def __init__(self, config: Mapping[str, Any], topic: str, watchdog: Watchdog) -> None:
        self._reader = TopicReader(config, [topic])
        self._reader.seek_to(self._reader.ends())
        self._watchdog = watchdog
        self._seen: set[str] = set()

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def wait_for(self, request_ids: Iterable[str]) -> None:
        """Return once the log holds every one of these requests.

        Raises
        ------
        PlaybackError
            Where no prediction comes for a minute.
        """
        waiting = set(request_ids) - self._seen
        moved = checked = time.monotonic()
        while waiting:
            found = self._reader.poll(0.2)
            keys = {(message.key() or b"").decode() for message in found}
            self._seen |= keys
            waiting -= keys
            now = time.monotonic()
            if found:
                moved = now
            if now - checked > _WATCHDOG_SECONDS:
                self._watchdog()
                checked = now
            if now - moved > _PATIENCE_SECONDS:
                msg = f"no prediction for request {min(waiting)} within {_PATIENCE_SECONDS:.0f} s; see `driftline status`"
                raise PlaybackError(msg)
