"""Zero-wait batching: whatever arrived while the last batch was worked on is the next one.

1. An item waits in the queue, bounded; a full queue refuses with BackpressureError. Those that one turn of the event
   loop has read are queued together, so that the worker does not start with the first of them alone.
2. The worker thread takes what waits, at most ``max_batch``, and works on it in one go, and learns its pace.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from driftline.runtime.errors import BackpressureError, UnavailableError
from driftline.runtime.logging import get_logger

_log = get_logger(__name__)

#: Of the newest batch in the mean time of an item.
_NEWEST_SHARE = 0.1

Item = TypeVar("Item")


class Pace:
    """How long an item takes while many wait: in batches that were at least half full.

    Small batches tell nothing of that: an item takes longer there, and nothing waits.
    """

    def __init__(self, max_batch: int) -> None:
        self.seconds_each = 0.0  # 0: not known yet
        self._max_batch = max_batch

    def note(self, seconds: float, items: int) -> None:
        """Take the time of a batch into the mean, which begins with the first."""
        if 2 * items >= self._max_batch:
            share = _NEWEST_SHARE if self.seconds_each else 1.0
            self.seconds_each += share * (seconds / items - self.seconds_each)


class ZeroWaitQueue(Generic[Item]):
    """Hands items of an event loop to a worker thread, together.

    Parameters
    ----------
    work
        What the thread does with a batch. It raises nothing: it tells whoever waits for an item what went wrong.
    items
        What the items are called to a caller that is refused.
    """

    def __init__(
        self, work: Callable[[list[Item]], None], *, items: str, max_batch: int, max_waiting: int
    ) -> None:
        self._work = work
        self._items = items
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: SimpleQueue[Item | None] = SimpleQueue()
        self._read: list[Item] = []  # of the event loop alone
        self._closed = False
        self.pace = Pace(max_batch)
        self._thread = threading.Thread(target=self._run, name=items, daemon=True)
        self._thread.start()

    def full(self, beside: int = 0) -> bool:
        """Tell whether too many items wait, with so many that wait elsewhere."""
        return self._waiting.qsize() + len(self._read) + beside >= self._max_waiting

    def refusal(self) -> BackpressureError:
        """Return what a caller is told while the queue is full."""
        return BackpressureError(f"too many {self._items} are waiting", retry_after=1.0)

    def admit(self, beside: int = 0) -> None:
        """Raise where no other item is taken: BackpressureError if too many wait, UnavailableError after ``close``."""
        if self._closed:
            raise UnavailableError("the predictor is stopping")
        if self.full(beside):  # (1)
            raise self.refusal()

    def put(self, item: Item, loop: asyncio.AbstractEventLoop) -> None:
        """Queue an item that was admitted; for the thread of its event loop."""
        if not self._read:
            loop.call_soon(self._put_read)
        self._read.append(item)

    def put_again(self, item: Item) -> None:
        """Queue an item that was worked on before; from any thread."""
        self._waiting.put(item)

    def close(self) -> None:
        """Work on what waits, then stop."""
        self._closed = True
        self._waiting.put(None)
        self._thread.join(10)

    def _put_read(self) -> None:
        for item in self._read:
            self._waiting.put(item)
        self._read.clear()

    def _run(self) -> None:
        going = True
        while going:
            taken = self._take()
            going = None not in taken
            begun = time.perf_counter()
            self._work([item for item in taken if item is not None])
            self.pace.note(time.perf_counter() - begun, len(taken))

    def _take(self) -> list[Item | None]:
        """Return what waits, at least one: None once the last has come."""
        taken = [self._waiting.get()]  # (2)
        while len(taken) < self._max_batch:
            try:
                taken.append(self._waiting.get_nowait())
            except Empty:
                break
        return taken


def call(loop: asyncio.AbstractEventLoop, step: Callable[[], None]) -> None:
    """Have an event loop take a step; from any thread, and in vain where the loop has ended."""
    try:
        loop.call_soon_threadsafe(step)
    except RuntimeError:  # so nobody waits
        _log.warning("an answer for a closed event loop")
