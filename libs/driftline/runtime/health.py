"""Health of a process: named components, each ready or not, with the reason.

Ready means: every component is ready and those under watch made progress lately. Alive is weaker: only a *vital*
component that went silent or failed for good makes a process not alive, which asks for a restart.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from driftline.runtime.metrics import PROGRESS_TIME


@dataclass(slots=True)
class _Component:
    ready: bool = True
    detail: str = ""
    progress_at: float | None = None
    max_silence: float | None = None
    vital: bool = False


class Health:
    """Thread-safe; written by the workers, read by ``/healthz`` and ``/readyz``.

    >>> health = Health("predictor", "predictor-0")
    >>> health.ready  # nothing reported yet
    False
    >>> health.set("broker", True)
    >>> health.ready
    True
    """

    def __init__(
        self, service: str = "", instance: str = "", *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.service = service
        self.instance = instance
        self._now = now
        self._started = now()
        self._lock = threading.Lock()
        self._components: dict[str, _Component] = {}
        self._last_error = ""
        self._stopping = False
        self._sections: dict[str, Callable[[], Any]] = {}

    def set(self, name: str, ready: bool, detail: str = "") -> None:
        """Report a component. The detail of one that is not ready becomes the last error."""
        with self._lock:
            component = self._components.setdefault(name, _Component())
            component.ready, component.detail = ready, detail
            if not ready and detail:
                self._last_error = f"{name}: {detail}"

    def watch(self, name: str, max_silence: float, *, vital: bool = False) -> None:
        """Expect ``progress(name)`` at least every ``max_silence`` seconds, from now on."""
        with self._lock:
            component = self._components.setdefault(name, _Component())
            component.max_silence, component.vital, component.progress_at = max_silence, vital, self._now()

    def progress(self, name: str) -> None:
        """Note that a component did something: a batch, an idle poll."""
        with self._lock:
            self._components.setdefault(name, _Component()).progress_at = self._now()
        PROGRESS_TIME.labels(name).set_to_current_time()

    def fail(self, name: str, detail: str) -> None:
        """Report a failure that only a restart mends: not ready, not alive."""
        with self._lock:
            component = self._components.setdefault(name, _Component())
            component.ready, component.detail = False, detail
            component.vital, component.max_silence, component.progress_at = True, 0.0, float("-inf")
            self._last_error = f"{name}: {detail}"

    def error(self, detail: str) -> None:
        """Remember an error that does not make the process unready."""
        with self._lock:
            self._last_error = detail

    def show(self, name: str, section: Callable[[], Any]) -> None:
        """Add a section to the report: what ``section`` returns then, as JSON has it."""
        self._sections[name] = section

    def stop(self) -> None:
        """Report that the process drains and takes nothing new."""
        with self._lock:
            self._stopping = True

    @property
    def last_error(self) -> str:
        """The newest error, kept after it is over."""
        return self._last_error

    @property
    def ready(self) -> bool:
        """Whether the process does its work now. False until a component reports."""
        with self._lock:
            return (
                bool(self._components)
                and not self._stopping
                and all(part.ready and not self._silent(part) for part in self._components.values())
            )

    @property
    def alive(self) -> bool:
        """Whether a restart would not help."""
        with self._lock:
            return not any(part.vital and self._silent(part) for part in self._components.values())

    def _silent(self, part: _Component) -> bool:
        return (
            part.max_silence is not None
            and part.progress_at is not None
            and self._now() - part.progress_at > part.max_silence
        )

    def report(self) -> dict[str, Any]:
        """Return what ``/readyz`` shows."""
        ready, alive = self.ready, self.alive
        sections = {name: section() for name, section in self._sections.items()}
        with self._lock:
            now = self._now()
            components: dict[str, dict[str, Any]] = {}
            for name, part in sorted(self._components.items()):
                shown: dict[str, Any] = {"ready": part.ready and not self._silent(part)}
                if part.detail:
                    shown["detail"] = part.detail
                elif self._silent(part):
                    shown["detail"] = f"no progress for more than {part.max_silence:g} s"
                if part.progress_at is not None and part.progress_at > float("-inf"):
                    shown["idle_seconds"] = round(now - part.progress_at, 3)
                components[name] = shown
            return {
                "service": self.service,
                "instance": self.instance,
                "ready": ready,
                "alive": alive,
                "stopping": self._stopping,
                "uptime_seconds": round(now - self._started, 3),
                "components": components,
                "last_error": self._last_error or None,
                **sections,
            }
