"""Calls into ONNX Runtime that take too long are stopped, at no cost to those that do not.

1. A call notes its end in a dictionary, and takes the note away when it is back: nothing wakes up for it.
2. One thread looks at the notes. It takes away that of a call whose end has passed, and sets its ``terminate`` flag. ONNX
   Runtime reads the flag between the operators of a model (``RunOptions``), so a single operator is not cut short: its
   call comes back when the operator does. Its answer is used, and counts as a failure (``succession``).
3. Only one of the two can take a note away. Where that was the call, nobody sets its flag any more, and the next call has
   its options; making them takes as long as a tenth of a small model.
4. The thread ends after some seconds without a call, and a call starts it again.
"""

import threading
import time
from itertools import count

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from driftline.models.scoring import Feed, Runner, run

_LOOK_SECONDS = 0.05
_IDLE_LOOKS = 100


class CallTimeoutError(TimeoutError):
    """A call took too long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it took longer than {seconds:g} s")


class TimeLimit:
    """Stops calls whose time is over. Thread-safe."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[float, onnxruntime.RunOptions]] = {}
        self._calls = count()  # not the options' identity: others' calls have the same options later
        self._spare: list[onnxruntime.RunOptions] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def runner(self, seconds: float) -> Runner:
        """Return what runs a session and raises CallTimeoutError where that takes longer than ``seconds``."""

        def limited(session: onnxruntime.InferenceSession, feed: Feed) -> NDArray[np.float64]:
            options, call = self._options(), next(self._calls)
            self._running[call] = (time.monotonic() + seconds, options)  # 1.
            if self._thread is None:
                self._begin()
            try:
                return run(session, feed, options)
            except Exception as error:
                if options.terminate:
                    raise CallTimeoutError(seconds) from error
                raise
            finally:
                if self._running.pop(call, None) is not None:  # 3.
                    self._spare.append(options)

        return limited

    def _options(self) -> onnxruntime.RunOptions:
        try:
            return self._spare.pop()
        except IndexError:
            return onnxruntime.RunOptions()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="time-limit", daemon=True)
                self._thread.start()

    def _look(self) -> None:
        idle = 0
        while True:
            time.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            for call, (end, options) in list(self._running.items()):  # 2.
                if now > end and self._running.pop(call, None) is not None:
                    options.terminate = True
            idle = 0 if self._running else idle + 1
            if idle > _IDLE_LOOKS and self._ended():
                return

    def _ended(self) -> bool:
        """Take the thread away first and look then: a call that has missed it starts another (4.)."""
        with self._lock:
            mine, self._thread = self._thread, None
            if self._running:
                self._thread = mine
            return self._thread is None
