"""Looks at the other services' ``/readyz``: a failure that lasts is a cause, its end is the end of it.

Services are found in the state folder (what ``driftline up`` supervises, and whoever wrote an instance file) and in
the settings (Kubernetes: a URL per service).
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from driftline.alerts.causes import Causes
from driftline.alerts.inputs import Cause, Clearance
from driftline.alerts.outages import Observed, observe
from driftline.runtime.clock import Clock, SystemClock
from driftline.runtime.errors import DriftlineError
from driftline.runtime.health import Health
from driftline.runtime.instance_file import read_instance_file, read_instance_files
from driftline.runtime.logging import get_logger
from driftline.runtime.supervisor import read_statuses

_log = get_logger(__name__)
_TIMEOUT_SECONDS = 2.0
_LONGEST_LOOK_SECONDS = 60.0
_ON_PURPOSE = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One look at one instance. ``final`` says that it will not come back by itself."""

    service: str
    instance: str
    ready: bool
    detail: str = ""
    final: bool = False
    levels: tuple[Mapping[str, Any], ...] = ()


class ServiceWatch:
    """A thread that looks at all services every so many seconds; ``look`` is one look.

    ``put`` writes into the log of inputs; where it cannot, the change is told at the next look.
    """

    def __init__(
        self,
        sightings: Callable[[], Iterable[Sighting]],
        causes: Causes,
        put: Callable[[Cause | Clearance], None],
        *,
        patience_seconds: float,
        poll_seconds: float,
        health: Health,
        clock: Clock | None = None,
    ) -> None:
        self._sightings = sightings
        self._causes = causes
        self._put = put
        self._patience_us = round(patience_seconds * 1e6)
        self._poll_seconds = poll_seconds
        self._health = health
        self._clock = clock or SystemClock()
        self._observed: dict[str, Observed] = {}
        self._burning: dict[tuple[str, str, str], str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service-watch", daemon=True)

    def start(self) -> None:
        """Start looking; where it stops, the alerter is not ready."""
        self._health.watch("service-watch", _LONGEST_LOOK_SECONDS)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def look(self) -> None:
        """Look at every service once."""
        for seen in self._sightings():
            now_us = self._clock.now_us()
            before = self._observed.get(seen.instance, Observed())
            after, change = observe(
                before, ready=seen.ready, now_us=now_us, patience_us=self._patience_us, final=seen.final
            )
            if change is not None:
                try:
                    self._put(self._told(seen, after, now_us))
                except (DriftlineError, TimeoutError) as error:
                    _log.warning(
                        "a change of a service is not told yet", instance=seen.instance, error=str(error)
                    )
                    continue
            self._observed[seen.instance] = after
            for level in seen.levels:
                self._look_at(seen, level, now_us)

    def _look_at(self, seen: Sighting, level: Mapping[str, Any], now_us: int) -> None:
        """Tell how a service level's budget burns, where that has changed."""
        place = (seen.instance, level["model"], level["objective"])
        if self._burning.get(place) == level["burning"]:
            return
        try:
            self._put(self._causes.of_burn(level, service=seen.service, instance=seen.instance, at=now_us))
        except (DriftlineError, TimeoutError) as error:
            _log.warning("a service level is not told yet", instance=seen.instance, error=str(error))
            return
        self._burning[place] = level["burning"]

    def _told(self, seen: Sighting, state: Observed, now_us: int) -> Cause | Clearance:
        if seen.ready:
            return self._causes.of_recovery(service=seen.service, instance=seen.instance, at=now_us)
        since = now_us if state.bad_since is None else state.bad_since
        _log.warning("a service is not ready", instance=seen.instance, detail=seen.detail)
        return self._causes.of_outage(
            service=seen.service, instance=seen.instance, detail=seen.detail, since=since, at=now_us
        )

    def _run(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            self.look()
            self._health.progress("service-watch")


def supervised(state: Path, *, own: str) -> list[Sighting]:
    """Look at what runs, or should run, from a state folder, but for this process (``own``)."""
    found = []
    supervised_names = set()
    for status in read_statuses(state):
        supervised_names.add(status.instance)
        if status.instance == own or status.state == _ON_PURPOSE:
            continue
        if status.state == "failed":
            found.append(
                Sighting(
                    service=status.service,
                    instance=status.instance,
                    ready=False,
                    detail=status.reason,
                    final=True,
                )
            )
            continue
        written = read_instance_file(state, status.instance)
        if written is None or not psutil.pid_exists(written.pid):
            detail = status.reason or "it has not said where it listens"
            found.append(
                Sighting(service=status.service, instance=status.instance, ready=False, detail=detail)
            )
            continue
        found.append(ask(status.service, status.instance, f"http://127.0.0.1:{written.port}"))
    others = [file for file in read_instance_files(state) if file.instance not in {own, *supervised_names}]
    return found + [
        ask(file.service, file.instance, f"http://127.0.0.1:{file.port}")
        for file in others
        if psutil.pid_exists(file.pid)
    ]


def configured(watch: str) -> list[Sighting]:
    """Look at the services of the setting: ``SERVICE=URL`` separated by commas."""
    pairs = [entry.partition("=") for entry in watch.split(",") if entry]
    return [ask(service, service, url) for service, _, url in pairs]


def ask(service: str, instance: str, url: str) -> Sighting:
    """Ask a service whether it is ready."""
    try:
        answer = httpx.get(f"{url.rstrip('/')}/readyz", timeout=_TIMEOUT_SECONDS, trust_env=False)
    except httpx.HTTPError as error:
        detail = f"it does not answer ({type(error).__name__})"
        return Sighting(service=service, instance=instance, ready=False, detail=detail)
    levels = _levels(answer)
    if answer.status_code == httpx.codes.OK:
        return Sighting(service=service, instance=instance, ready=True, levels=levels)
    return Sighting(service=service, instance=instance, ready=False, detail=_explain(answer), levels=levels)


def _levels(answer: httpx.Response) -> tuple[Mapping[str, Any], ...]:
    """Return how the service levels stand that an instance measures."""
    try:
        return tuple(answer.json().get("service_levels", ()))
    except (ValueError, AttributeError):
        return ()


def _explain(answer: httpx.Response) -> str:
    """Return which components are not ready, and why."""
    try:
        parts = answer.json()["components"]
        bad = [f"{name}: {part.get('detail', '')}" for name, part in parts.items() if not part["ready"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        bad = []
    return "; ".join(bad) or f"it answers {answer.status_code}"
