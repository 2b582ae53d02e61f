"""Marks claims as logged after their answers were given: many at once, off the callers' path."""

import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from queue import Empty, SimpleQueue
from typing import TypeAlias

from driftline.runtime.errors import UnavailableError
from driftline.runtime.logging import get_logger
from driftline.serving.claims import Claims

_log = get_logger(__name__)
#: So long marks are gathered, so many go out at once.
_GATHER_SECONDS = 0.01
_MOST = 1_000


class _State(Enum):
    """What became of a record."""

    LOGGED = auto()
    LOGGED_UNCLAIMED = auto()
    UNSURE = auto()
    UNSENT = auto()


_IN_THE_LOG = (_State.LOGGED, _State.LOGGED_UNCLAIMED)
#: A request's id, its framed record, and what became of it.
_Mark: TypeAlias = tuple[str, bytes, _State]


class Marks:
    """Writes what became of claims, on a thread of its own."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._waiting: SimpleQueue[_Mark | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._done: Callable[[Sequence[str]], None] = lambda _: None

    def start(self, done: Callable[[Sequence[str]], None]) -> None:
        """Start; ``done`` is told of the requests whose marks are there (or could not be made)."""
        self._done = done
        self._thread = threading.Thread(target=self._work, name="marks", daemon=True)
        self._thread.start()

    def logged(self, request_id: str, value: bytes) -> None:
        """The log has a record: its claim is marked, and made where there is none."""
        self._waiting.put((request_id, value, _State.LOGGED))

    def logged_unclaimed(self, request_id: str, value: bytes) -> None:
        """The log has a record under a caller's UUID that was not claimed: that is noted as well."""
        self._waiting.put((request_id, value, _State.LOGGED_UNCLAIMED))

    def unsure(self, request_id: str, value: bytes) -> None:
        """The log may have a record: its claim is made where there is none."""
        self._waiting.put((request_id, value, _State.UNSURE))

    def unsent(self, request_id: str) -> None:
        """The log has not been sent a record: its claim is dropped."""
        self._waiting.put((request_id, b"", _State.UNSENT))

    def close(self) -> None:
        """Write what waits, then stop."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(10)
        self._claims.close()

    def _work(self) -> None:
        going = True
        while going:
            taken = [self._waiting.get()]
            time.sleep(_GATHER_SECONDS)
            while len(taken) < _MOST:
                try:
                    taken.append(self._waiting.get_nowait())
                except Empty:
                    break
            going = None not in taken
            self._write([one for one in taken if one is not None])

    def _write(self, marks: Sequence[_Mark]) -> None:
        unclaimed = [name for name, _, state in marks if state is _State.LOGGED_UNCLAIMED]
        logged = [(name, value) for name, value, state in marks if state in _IN_THE_LOG]
        unsure = [(name, value) for name, value, state in marks if state is _State.UNSURE]
        unsent = [name for name, _, state in marks if state is _State.UNSENT]
        try:
            if logged:
                self._claims.keep(*zip(*logged, strict=True))
            if unclaimed:
                self._claims.note(unclaimed)
            if unsure:
                self._claims.claim(*zip(*unsure, strict=True))
            if unsent:
                self._claims.drop(unsent)
        except UnavailableError as error:
            _log.warning("answers are not kept", count=len(marks), error=str(error))
        self._done([name for name, _, _ in marks])
